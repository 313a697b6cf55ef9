//! The fuzz targets' corpora: nothing in them makes a crate panic or break a promise.

use std::path::Path;

#[test]
fn no_input_of_the_corpora_is_a_fault() {
    for (name, target) in goldenseal_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{}", input.display());
            target(&std::fs::read(&input).unwrap());
        }
        target(&[]);
    }
}
