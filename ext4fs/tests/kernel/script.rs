//! Random scripts of changes. A script knows what there is, so that each of its steps can be done.

use std::collections::BTreeMap;

/// A path below the root, without a leading slash.
pub(crate) type Path = Vec<u8>;

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create {
        path: Path,
        mode: u32,
    },
    CreateDir {
        path: Path,
        mode: u32,
    },
    Symlink {
        path: Path,
        target: Vec<u8>,
    },
    HardLink {
        original: Path,
        path: Path,
    },
    Write {
        path: Path,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        path: Path,
        len: u64,
    },
    Punch {
        path: Path,
        offset: u64,
        len: u64,
    },
    Rename {
        from: Path,
        to: Path,
    },
    RemoveFile {
        path: Path,
    },
    RemoveDir {
        path: Path,
    },
    RemoveAll {
        path: Path,
    },
    SetMode {
        path: Path,
        mode: u32,
    },
    SetOwner {
        path: Path,
        uid: u32,
        gid: u32,
    },
    /// Seconds of last access and last change.
    SetTimes {
        path: Path,
        accessed: i64,
        modified: i64,
    },
    SetXattr {
        path: Path,
        name: String,
        value: Vec<u8>,
    },
    RemoveXattr {
        path: Path,
        name: String,
    },
}

/// Pseudo-random numbers, the same each time.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Not zero, so that a hole is told from contents.
        let mut bytes = vec![0; len];
        for chunk in bytes.chunks_mut(8) {
            let word = (self.next() | 0x0101_0101_0101_0101).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    size: u64,
    attributes: BTreeMap<String, usize>,
}

/// What there is, as far as a script must know it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    names: BTreeMap<Path, usize>,
    nodes: Vec<Node>,
    /// Paths whose time of change was set last of all.
    pub(crate) timed: Vec<Path>,
}

/// What a file system can hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) block_size: usize,
    /// Seconds that its inodes can tell.
    pub(crate) last_second: i64,
    pub(crate) xattrs: bool,
    /// Where the farthest write goes.
    pub(crate) far: u64,
    /// Names in the large directory.
    pub(crate) crowd: usize,
}

impl Known {
    pub(crate) fn nothing() -> Self {
        let root = Node { kind: Kind::Directory, size: 0, attributes: BTreeMap::new() };
        Self { names: BTreeMap::new(), nodes: vec![root], timed: Vec::new() }
    }

    fn pick(&self, random: &mut Random, kinds: &[Kind]) -> Option<Path> {
        let fitting: Vec<&Path> = self
            .names
            .iter()
            .filter(|(_, node)| kinds.contains(&self.nodes[**node].kind))
            .map(|(path, _)| path)
            .collect();
        (!fitting.is_empty()).then(|| fitting[random.below(fitting.len())].clone())
    }

    fn node(&mut self, path: &[u8]) -> &mut Node {
        let index = self.names[path];
        &mut self.nodes[index]
    }

    fn fresh_path(&self, random: &mut Random) -> Path {
        let directory = if random.one_in(4) { None } else { self.pick(random, &[Kind::Directory]) };
        // Not too deep, so that all paths stay short enough for a system call.
        let directory = directory.filter(|path| path.len() < 2000).unwrap_or_default();
        loop {
            let len = match random.below(10) {
                0 => 255,
                1 => 1 + random.below(254),
                _ => 1 + random.below(12),
            };
            // Any byte but `/` and NUL; most are letters.
            let odd = random.one_in(12);
            let name: Vec<u8> = (0..len)
                .map(|_| {
                    if odd {
                        [1, 9, 32, 92, 127, 128, 200, 255][random.below(8)]
                    } else {
                        b'a' + random.below(26) as u8
                    }
                })
                .collect();
            let path = join(&directory, &name);
            if !self.names.contains_key(&path) && path != b"lost+found" {
                return path;
            }
        }
    }

    fn add(&mut self, path: &Path, kind: Kind) {
        self.nodes.push(Node { kind, size: 0, attributes: BTreeMap::new() });
        self.names.insert(path.clone(), self.nodes.len() - 1);
    }

    fn below(&self, path: &[u8]) -> Vec<Path> {
        let prefix = join(path, b"");
        self.names
            .range(prefix.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&prefix))
            .cloned()
            .collect()
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        for old in self.below(from) {
            let node = self.names.remove(&old).unwrap();
            self.names.insert([to.as_slice(), &old[from.len()..]].concat(), node);
        }
        let node = self.names.remove(from).unwrap();
        self.names.insert(to.clone(), node);
    }

    /// A script of `len` steps, and what there is after it.
    pub(crate) fn script(&mut self, random: &mut Random, limits: &Limits, len: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        self.crowd(random, limits, &mut steps);
        for _ in 0..len {
            self.step(random, limits, &mut steps);
        }
        self.timed.clear();
        let paths: Vec<Path> = self.names.keys().cloned().collect();
        for path in paths {
            let kind = self.node(&path).kind;
            if kind != Kind::Symlink && random.one_in(8) {
                let mode = if kind == Kind::File { random.below(0o10000) } else { random.below(0o2000) };
                steps.push(Step::SetMode { path: path.clone(), mode: mode as u32 });
            }
            if random.one_in(3) {
                let times = [
                    0,
                    -1,
                    -86_400 * 366 * 60,
                    1_700_000_000,
                    (1 << 31) - 1,
                    1 << 31,
                    0xFFFF_FFFF,
                    1 << 33,
                    (1 << 34) - 1 - (1 << 31),
                ];
                let mut pick = || times[random.below(times.len())].min(limits.last_second);
                let (accessed, modified) = (pick(), pick());
                steps.push(Step::SetTimes { path: path.clone(), accessed, modified });
                self.timed.push(path);
            }
        }
        steps
    }

    /// Many names in one directory, some of which go again, so that its index grows and has gaps.
    fn crowd(&mut self, random: &mut Random, limits: &Limits, steps: &mut Vec<Step>) {
        let directory = self.fresh_path(random);
        steps.push(Step::CreateDir { path: directory.clone(), mode: 0o755 });
        self.add(&directory, Kind::Directory);
        let mut inside = Vec::new();
        for n in 0..limits.crowd {
            let path = join(&directory, format!("{n}-{:x}", random.next() >> random.below(60)).as_bytes());
            match random.below(40) {
                0 => {
                    steps.push(Step::CreateDir { path: path.clone(), mode: 0o700 });
                    self.add(&path, Kind::Directory);
                }
                _ if n > 4 => {
                    // Most names are links, which are cheap.
                    let original = self.pick_file_of(random, &inside);
                    steps.push(Step::HardLink { original: original.clone(), path: path.clone() });
                    self.names.insert(path.clone(), self.names[&original]);
                    inside.push(path);
                }
                _ => {
                    steps.push(Step::Create { path: path.clone(), mode: 0o644 });
                    self.add(&path, Kind::File);
                    inside.push(path);
                }
            }
        }
        for path in inside {
            if random.one_in(5) {
                steps.push(Step::RemoveFile { path: path.clone() });
                self.names.remove(&path);
            }
        }
    }

    fn pick_file_of(&self, random: &mut Random, paths: &[Path]) -> Path {
        paths[random.below(paths.len())].clone()
    }

    fn step(&mut self, random: &mut Random, limits: &Limits, steps: &mut Vec<Step>) {
        let any = [Kind::File, Kind::Directory, Kind::Symlink];
        match random.below(100) {
            0..=13 => {
                let path = self.fresh_path(random);
                steps.push(Step::Create { path: path.clone(), mode: random.below(0o1000) as u32 });
                self.add(&path, Kind::File);
            }
            14..=19 => {
                let path = self.fresh_path(random);
                steps.push(Step::CreateDir { path: path.clone(), mode: random.below(0o2000) as u32 });
                self.add(&path, Kind::Directory);
            }
            20..=23 => {
                let path = self.fresh_path(random);
                // Around the border of what the inode holds, and longer.
                let len = [1, 58, 59, 60, 61, 100, 900][random.below(7)];
                let target = random.bytes(len).iter().map(|byte| b'a' + byte % 26).collect();
                steps.push(Step::Symlink { path: path.clone(), target });
                self.add(&path, Kind::Symlink);
            }
            24..=26 => {
                let Some(original) = self.pick(random, &[Kind::File, Kind::Symlink]) else { return };
                let path = self.fresh_path(random);
                steps.push(Step::HardLink { original: original.clone(), path: path.clone() });
                self.names.insert(path, self.names[&original]);
            }
            27..=52 => {
                let Some(path) = self.pick(random, &[Kind::File]) else { return };
                let size = self.node(&path).size;
                let offset = match random.below(12) {
                    0 if random.one_in(4) => limits.far - random.below(1 << 20) as u64,
                    1..=4 => size,
                    5..=7 => random.below(size as usize + 1) as u64,
                    8 => random.below(3 << 20) as u64,
                    _ => random.below(40) as u64 * limits.block_size as u64,
                };
                let longest = [20, limits.block_size, 30_000, 100_000][random.below(4)];
                let len = 1 + random.below(longest);
                let bytes = random.bytes(len);
                self.node(&path).size = size.max(offset + bytes.len() as u64);
                steps.push(Step::Write { path, offset, bytes });
            }
            53..=58 => {
                let Some(path) = self.pick(random, &[Kind::File]) else { return };
                let size = self.node(&path).size;
                let len = if random.one_in(3) {
                    size + random.below(200_000) as u64
                } else {
                    random.below(size as usize + 1) as u64
                };
                self.node(&path).size = len;
                steps.push(Step::SetLen { path, len });
            }
            59..=63 => {
                let Some(path) = self.pick(random, &[Kind::File]) else { return };
                let size = self.node(&path).size.max(1);
                let offset = random.below(size as usize) as u64;
                let len = 1 + random.below((size - offset) as usize) as u64;
                steps.push(Step::Punch { path, offset, len });
            }
            64..=69 => self.rename_step(random, steps),
            70..=73 => {
                let Some(path) = self.pick(random, &[Kind::File, Kind::Symlink]) else { return };
                self.names.remove(&path);
                steps.push(Step::RemoveFile { path });
            }
            74 => {
                let Some(path) = self.pick(random, &[Kind::Directory]) else { return };
                if self.below(&path).is_empty() {
                    self.names.remove(&path);
                    steps.push(Step::RemoveDir { path });
                }
            }
            75 => {
                // Seldom: much goes at once.
                let Some(path) = self.pick(random, &[Kind::Directory]).filter(|_| random.one_in(4)) else { return };
                for below in self.below(&path) {
                    self.names.remove(&below);
                }
                self.names.remove(&path);
                steps.push(Step::RemoveAll { path });
            }
            76..=78 => {
                let Some(path) = self.pick(random, &[Kind::File, Kind::Directory]) else { return };
                steps.push(Step::SetMode { path, mode: random.below(0o1000) as u32 });
            }
            79..=81 => {
                let Some(path) = self.pick(random, &any) else { return };
                let mut id = || [0, 1000, 65_534, 65_536, 100_000, 0xFFFF_FFF0][random.below(6)];
                let (uid, gid) = (id(), id());
                steps.push(Step::SetOwner { path: path.clone(), uid, gid });
                if self.node(&path).kind == Kind::File {
                    // The kernel takes set-user-ID away from what changes hands; we leave that to the caller.
                    steps.push(Step::SetMode { path, mode: random.below(0o1000) as u32 });
                }
            }
            _ => self.xattr_step(random, limits, steps),
        }
    }

    fn rename_step(&mut self, random: &mut Random, steps: &mut Vec<Step>) {
        let Some(from) = self.pick(random, &[Kind::File, Kind::Directory, Kind::Symlink]) else { return };
        let kind = self.node(&from).kind;
        let inside = join(&from, b"");
        let to = if random.one_in(2) {
            self.fresh_path(random)
        } else {
            // Over something of its own sort; a directory only over an empty one.
            let kinds: &[Kind] =
                if kind == Kind::Directory { &[Kind::Directory] } else { &[Kind::File, Kind::Symlink] };
            let Some(to) = self.pick(random, kinds) else { return };
            if kind == Kind::Directory && !self.below(&to).is_empty() {
                return;
            }
            to
        };
        let same = self.names.get(&to) == Some(&self.names[&from]);
        if to.starts_with(&inside) || from.starts_with(&join(&to, b"")) || same {
            return;
        }
        let longest = self.below(&from).iter().map(|path| path.len()).max().unwrap_or(0).saturating_sub(from.len());
        if to.len() + longest > 3500 {
            return;
        }
        self.names.remove(&to);
        self.rename(&from, &to);
        steps.push(Step::Rename { from, to });
    }

    fn xattr_step(&mut self, random: &mut Random, limits: &Limits, steps: &mut Vec<Step>) {
        let any = [Kind::File, Kind::Directory, Kind::Symlink];
        let Some(path) = self.pick(random, &any).filter(|_| limits.xattrs) else { return };
        let node = self.node(&path);
        let space = if node.kind == Kind::Symlink || random.one_in(3) { "trusted" } else { "user" };
        let name = match random.below(6) {
            0 => "security.selinux".to_owned(),
            1 => format!("{space}.{}", "n".repeat(1 + random.below(60))),
            n => format!("{space}.{n}"),
        };
        if random.one_in(4) {
            let Some(name) = node.attributes.keys().nth(random.below(node.attributes.len())).cloned() else { return };
            node.attributes.remove(&name);
            steps.push(Step::RemoveXattr { path, name });
            return;
        }
        let most = [8, 40, 100, 300, limits.block_size / 2, limits.block_size][random.below(6)];
        let len = random.below(most);
        let cost = |name: &str, len: usize| 24 + name.len() + len;
        let others: usize = node.attributes.iter().filter(|(n, _)| **n != name).map(|(n, len)| cost(n, *len)).sum();
        // All of them fit one block, wherever else they may be put.
        if others + cost(&name, len) > limits.block_size - 100 {
            return;
        }
        node.attributes.insert(name.clone(), len);
        steps.push(Step::SetXattr { path, name, value: random.bytes(len) });
    }
}

fn join(directory: &[u8], name: &[u8]) -> Path {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
