//! Random changes, on the file system and on a model of it in memory: both must stay alike, and e2fsck must agree.

use std::collections::BTreeMap;

use ext4fs::{Error, FileKind, FileSystem, NewNode, OpenOptions, Ownership};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{LAYOUTS, NOW, check, has_tool, mke2fs, pattern, scratch, walk};

#[derive(Debug, Clone)]
enum Step {
    Create { directory: u8, name: u8 },
    MakeDirectory { directory: u8, name: u8 },
    Symlink { directory: u8, name: u8, len: u16 },
    Link { original: u8, directory: u8, name: u8 },
    Write { file: u8, offset: u32, len: u32 },
    SetLen { file: u8, len: u32 },
    Punch { file: u8, offset: u32, len: u32 },
    Remove { path: u8 },
    Rename { path: u8, directory: u8, name: u8 },
    SetXattr { path: u8, name: u8, len: u16 },
    RemoveXattr { path: u8, name: u8 },
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(directory, name)| Step::Create { directory, name }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(directory, name)| Step::MakeDirectory { directory, name }),
        1 => (any::<u8>(), any::<u8>(), 1u16..200).prop_map(|(directory, name, len)| Step::Symlink { directory, name, len }),
        1 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(original, directory, name)| Step::Link { original, directory, name }),
        8 => (any::<u8>(), 0u32..400_000, 1u32..60_000).prop_map(|(file, offset, len)| Step::Write { file, offset, len }),
        3 => (any::<u8>(), 0u32..500_000).prop_map(|(file, len)| Step::SetLen { file, len }),
        3 => (any::<u8>(), 0u32..400_000, 1u32..200_000).prop_map(|(file, offset, len)| Step::Punch { file, offset, len }),
        3 => any::<u8>().prop_map(|path| Step::Remove { path }),
        3 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(path, directory, name)| Step::Rename { path, directory, name }),
        2 => (any::<u8>(), any::<u8>(), 0u16..900).prop_map(|(path, name, len)| Step::SetXattr { path, name, len }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(path, name)| Step::RemoveXattr { path, name }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

type Path = Vec<u8>;

#[derive(Debug, Default, Clone)]
struct Node {
    kind: Option<FileKind>,
    bytes: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Names to inodes, and inodes by the numbers that the file system gave them.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<Path, u32>,
    nodes: BTreeMap<u32, Node>,
}

impl Model {
    fn directories(&self) -> Vec<Path> {
        let directories = self.names.iter().filter(|(_, inode)| self.kind(**inode) == FileKind::Directory);
        std::iter::once(Vec::new()).chain(directories.map(|(path, _)| path.clone())).collect()
    }

    fn kind(&self, inode: u32) -> FileKind {
        self.nodes[&inode].kind.unwrap()
    }

    fn files(&self) -> Vec<u32> {
        self.nodes.iter().filter(|(_, node)| node.kind == Some(FileKind::File)).map(|(inode, _)| *inode).collect()
    }

    fn below(&self, path: &[u8]) -> Vec<Path> {
        let prefix = [path, b"/"].concat();
        self.names.keys().filter(|name| name.starts_with(&prefix)).cloned().collect()
    }

    fn forget_unnamed(&mut self) {
        let named: std::collections::BTreeSet<u32> = self.names.values().copied().collect();
        self.nodes.retain(|inode, _| named.contains(inode));
    }

    fn compare(&self, fs: &FileSystem) {
        let mut found = walk(fs);
        found.remove(b"/lost+found".as_slice());
        assert_eq!(found.keys().collect::<Vec<_>>(), self.names.keys().collect::<Vec<_>>());
        for (path, inode) in &self.names {
            let (found, node) = (&found[path], &self.nodes[inode]);
            assert_eq!(found.metadata.inode, *inode);
            assert_eq!(Some(found.metadata.kind), node.kind);
            assert!(found.bytes == node.bytes, "{path:?} differs");
            assert_eq!(found.attributes, node.attributes);
            if node.kind != Some(FileKind::Directory) {
                let links = self.names.values().filter(|other| *other == inode).count();
                assert_eq!(found.metadata.links as usize, links);
            }
        }
    }
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[n as usize % from.len()].clone())
}

fn apply(fs: &mut FileSystem, model: &mut Model, step: &Step) {
    let owner = Ownership { mode: 0o644, uid: 1, gid: 2 };
    let place = |model: &Model, directory: u8, name: u8| {
        let directory = pick(&model.directories(), directory).unwrap();
        let name = format!("{}{}", "n".repeat(name as usize % 90), name % 24);
        (directory.clone(), name.clone().into_bytes(), [directory.as_slice(), b"/", name.as_bytes()].concat())
    };
    let create = |fs: &mut FileSystem, model: &mut Model, directory: u8, name: u8, node: NewNode<'_>| {
        let (directory, name, path) = place(model, directory, name);
        let parent = fs.resolve(&directory).unwrap();
        let result = fs.create(parent, &name, node, owner);
        if model.names.contains_key(&path) {
            assert!(matches!(result, Err(Error::AlreadyExists)), "{result:?}");
            return;
        }
        let (kind, bytes) = match node {
            NewNode::File => (FileKind::File, Vec::new()),
            NewNode::Directory => (FileKind::Directory, Vec::new()),
            NewNode::Symlink(target) => (FileKind::Symlink, target.to_vec()),
            other => panic!("no step makes {other:?}"),
        };
        let inode = result.unwrap();
        model.names.insert(path, inode);
        model.nodes.insert(inode, Node { kind: Some(kind), bytes, attributes: BTreeMap::new() });
    };
    let all: Vec<Path> = model.names.keys().cloned().collect();
    match *step {
        Step::Create { directory, name } => create(fs, model, directory, name, NewNode::File),
        Step::MakeDirectory { directory, name } => create(fs, model, directory, name, NewNode::Directory),
        Step::Symlink { directory, name, len } => {
            create(fs, model, directory, name, NewNode::Symlink(&vec![b't'; len as usize]));
        }
        Step::Link { original, directory, name } => {
            let Some(original) = pick(&all, original) else { return };
            let (directory, name, path) = place(model, directory, name);
            let inode = model.names[&original];
            let result = fs.link(fs.resolve(&directory).unwrap(), &name, inode);
            if model.names.contains_key(&path) {
                assert!(matches!(result, Err(Error::AlreadyExists)), "{result:?}");
            } else if model.kind(inode) == FileKind::Directory {
                assert!(matches!(result, Err(Error::IsADirectory(_))), "{result:?}");
            } else {
                result.unwrap();
                model.names.insert(path, inode);
            }
        }
        Step::Write { file, offset, len } => {
            let Some(inode) = pick(&model.files(), file) else { return };
            let data = pattern(len as usize, offset ^ len);
            fs.write_at(inode, u64::from(offset), &data).unwrap();
            let bytes = &mut model.nodes.get_mut(&inode).unwrap().bytes;
            bytes.resize(bytes.len().max((offset + len) as usize), 0);
            bytes[offset as usize..][..data.len()].copy_from_slice(&data);
        }
        Step::SetLen { file, len } => {
            let Some(inode) = pick(&model.files(), file) else { return };
            fs.set_len(inode, u64::from(len)).unwrap();
            model.nodes.get_mut(&inode).unwrap().bytes.resize(len as usize, 0);
        }
        Step::Punch { file, offset, len } => {
            let Some(inode) = pick(&model.files(), file) else { return };
            fs.punch_hole(inode, u64::from(offset), u64::from(len)).unwrap();
            let bytes = &mut model.nodes.get_mut(&inode).unwrap().bytes;
            let end = bytes.len().min((offset + len) as usize);
            let start = end.min(offset as usize);
            bytes[start..end].fill(0);
        }
        Step::Remove { path } => {
            let Some(path) = pick(&all, path) else { return };
            let directory = model.kind(model.names[&path]) == FileKind::Directory;
            let result = if directory { fs.remove_dir_path(&path) } else { fs.remove_file(&path) };
            if directory && !model.below(&path).is_empty() {
                assert!(matches!(result, Err(Error::DirectoryNotEmpty)), "{result:?}");
                return;
            }
            result.unwrap();
            model.names.remove(&path);
        }
        Step::Rename { path, directory, name } => {
            let Some(from) = pick(&all, path) else { return };
            let (_, _, to) = place(model, directory, name);
            rename(fs, model, &from, &to);
        }
        Step::SetXattr { path, name, len } => {
            let Some(path) = pick(&all, path) else { return };
            let inode = model.names[&path];
            if model.kind(inode) == FileKind::Symlink {
                return;
            }
            let name = format!("user.{}", name % 5).into_bytes();
            let value = pattern(len as usize, u32::from(len));
            match fs.set_xattr(inode, &name, &value) {
                Ok(()) => drop(model.nodes.get_mut(&inode).unwrap().attributes.insert(name, value)),
                Err(error) => assert!(matches!(error, Error::NoSpace(_)), "{error}"),
            }
        }
        Step::RemoveXattr { path, name } => {
            let Some(path) = pick(&all, path) else { return };
            let name = format!("user.{}", name % 5).into_bytes();
            fs.remove_xattr(model.names[&path], &name).unwrap();
            model.nodes.get_mut(&model.names[&path]).unwrap().attributes.remove(&name);
        }
        Step::Flush => fs.flush().unwrap(),
        Step::Reopen => {}
    }
    model.forget_unnamed();
}

fn rename(fs: &mut FileSystem, model: &mut Model, from: &Path, to: &Path) {
    let result = fs.rename_path(from, to);
    let inode = model.names[from];
    let directory = model.kind(inode) == FileKind::Directory;
    if directory && to.starts_with(&[from.as_slice(), b"/"].concat()) {
        assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
        return;
    }
    match model.names.get(to) {
        Some(target) if *target == inode => return result.unwrap(),
        Some(target) => match (directory, model.kind(*target) == FileKind::Directory) {
            (true, false) => return assert!(matches!(result, Err(Error::NotADirectory(_))), "{result:?}"),
            (false, true) => return assert!(matches!(result, Err(Error::IsADirectory(_))), "{result:?}"),
            (true, true) if !model.below(to).is_empty() => {
                return assert!(matches!(result, Err(Error::DirectoryNotEmpty)), "{result:?}");
            }
            _ => {}
        },
        None => {}
    }
    result.unwrap();
    for old in model.below(from) {
        let moved = model.names.remove(&old).unwrap();
        model.names.insert([to.as_slice(), &old[from.len()..]].concat(), moved);
    }
    model.names.remove(from);
    model.names.insert(to.clone(), inode);
}

#[test]
fn random_changes_agree_with_a_model() {
    if !has_tool("model", "mke2fs") {
        return;
    }
    let folder = scratch();
    let images: Vec<_> = LAYOUTS
        .iter()
        .map(|(name, arguments)| (*name, std::fs::read(mke2fs(folder.path(), arguments, 32, None)).unwrap()))
        .collect();
    let path = folder.path().join("image");
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    let cases = (0..images.len(), proptest::collection::vec(step(), 1..120));
    TestRunner::new(config)
        .run(&cases, |(layout, steps)| {
            let (name, image) = &images[layout];
            let device = std::sync::Arc::new(block::Memory::from(image.clone()));
            let options = OpenOptions { read_only: false, clock: Some(NOW) };
            let mut fs = FileSystem::open(device.clone(), &options).unwrap();
            let mut model = Model::default();
            for step in &steps {
                apply(&mut fs, &mut model, step);
                if matches!(step, Step::Reopen) {
                    check(&mut fs, &device, &path, name);
                    model.compare(&fs);
                    fs = FileSystem::open(device.clone(), &options).unwrap();
                }
            }
            model.compare(&fs);
            check(&mut fs, &device, &path, name);
            model.compare(&FileSystem::open_read_only(device).unwrap());
            Ok(())
        })
        .unwrap();
}
