//! Files of the host that an image names: which of them may be opened.

use std::path::{Path, PathBuf};

/// Where the file of a `json:` name really is, by the same rules. As QEMU has it, it is not the image's folder that a relative one
/// starts from, but the working directory.
pub(crate) fn resolve_json(filename: &str, image_path: Option<&Path>, folders: &[PathBuf]) -> Result<PathBuf, String> {
    allowed(Path::new(filename), image_path, folders)
}

/// Where the file `name` really is. `image_path` is the image that names it, in whose folder, or in (or below) one of
/// `folders`, it must lie with all symbolic links followed. The error is the reason why it is not opened.
pub(crate) fn resolve(name: &str, image_path: Option<&Path>, folders: &[PathBuf]) -> Result<PathBuf, String> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    let path = Path::new(name);
    // A colon before the first slash is QEMU's mark of a protocol: `json:`, `nbd:`, `http:`.
    if name.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err("only the name of a local file is supported".to_owned());
    }
    let full = match (own_folder(image_path), path.is_absolute()) {
        (_, true) => path.to_owned(),
        (Some(folder), false) => folder.join(path),
        (None, false) => return Err("a relative name needs an image with a path".to_owned()),
    };
    allowed(&full, image_path, folders)
}

fn own_folder(image_path: Option<&Path>) -> Option<PathBuf> {
    image_path.map(|image| match image.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    })
}

fn allowed(full: &Path, image_path: Option<&Path>, folders: &[PathBuf]) -> Result<PathBuf, String> {
    let own_folder = own_folder(image_path);
    let real = full.canonicalize().map_err(|e| format!("{}: {e}", full.display()))?;
    let in_own_folder = own_folder.and_then(|folder| folder.canonicalize().ok()).as_deref() == real.parent();
    let in_folder = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    if !in_own_folder && !folders.iter().any(in_folder) {
        return Err("it lies outside the folders where such files may be".to_owned());
    }
    Ok(real)
}
