use crate::Guest;
use crate::memory::MemoryFileSystem;

fn guest() -> Guest {
    let mut root = MemoryFileSystem::new();
    root.add_file("/etc/a.conf", b"").unwrap();
    Guest::from_file_systems(Box::new(root), Vec::new()).unwrap()
}

#[test]
fn placeholder_listing() {
    assert_eq!(guest().glob("/etc/*").unwrap(), [b"/etc/a.conf"]);
}
