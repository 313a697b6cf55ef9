//! `--image-opts`: images named by options, as QEMU's scripts do for encrypted ones.

use std::path::PathBuf;

use anyhow::Result;

use crate::args::Format;
use crate::args::image::{Image, Source};
use crate::exit_code::Usage;
use crate::secret::{Passphrases, Secrets, split_options};

/// An image, as `driver=qcow2,encrypt.key-secret=ID,file.filename=FILE` names it.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    format: Option<Format>,
    passphrases: Passphrases,
}

/// Puts the file's name where the options were, and with it what else they say.
pub(super) fn resolve(image: &mut Image) -> Result<()> {
    match image {
        Image::Info(args) => in_place(&mut args.image, &mut args.source),
        Image::Check(args) => in_place(&mut args.image, &mut args.source),
        Image::Map(args) => in_place(&mut args.image, &mut args.source),
        Image::Compare(args) => {
            if args.source.image_opts {
                let second = read(&args.second, &Secrets::read(&args.source.objects)?)?;
                (args.second, args.second_format) = (second.path, second.format);
                args.second_passphrases = second.passphrases;
            }
            in_place(&mut args.first, &mut args.source)
        }
        Image::Measure(args) => match &mut args.image {
            Some(image) => in_place(image, &mut args.source),
            None => Ok(()),
        },
        Image::Snapshot(args) => in_place(&mut args.image, &mut args.source),
        Image::Resize(args) => in_place(&mut args.image, &mut args.source),
        Image::Bitmap(args) => in_place(&mut args.image, &mut args.source),
        Image::Commit(args) => in_place(&mut args.image, &mut args.source),
        Image::Rebase(args) => in_place(&mut args.image, &mut args.source),
        Image::Amend(args) => in_place(&mut args.image, &mut args.source),
        // Each of several images may be named by options.
        Image::Create(_) | Image::Convert(_) => Ok(()),
    }
}

fn in_place(image: &mut PathBuf, source: &mut Source) -> Result<()> {
    let secrets = Secrets::read(&source.objects)?;
    if source.image_opts {
        let named = read(image, &secrets)?;
        *image = named.path;
        (source.format, source.passphrases) = (named.format, named.passphrases);
    }
    Ok(())
}

/// The file that `image` names, and how it is read.
pub(super) fn named(image: &std::path::Path, source: &Source) -> Result<(PathBuf, Source)> {
    let (mut path, mut source) = (image.to_owned(), source.clone());
    in_place(&mut path, &mut source)?;
    Ok((path, source))
}

fn read(options: &std::path::Path, secrets: &Secrets) -> Result<Named> {
    let Some(text) = options.to_str() else {
        return Err(Usage("image options must be valid UTF-8".to_owned()).into());
    };
    let mut named = Named { path: PathBuf::new(), format: None, passphrases: Passphrases::default() };
    for (name, value) in split_options(text) {
        let value = value.unwrap_or_default();
        let mut depth = 0;
        let mut rest = name.as_str();
        while let Some(below) = rest.strip_prefix("backing.") {
            (rest, depth) = (below, depth + 1);
        }
        match (rest, depth, value.as_str()) {
            ("driver", 0, "qcow2") => named.format = Some(Format::Qcow2),
            ("driver", 0, "raw") => named.format = Some(Format::Raw),
            ("file.filename" | "filename", 0, path) => named.path = PathBuf::from(path),
            ("file.driver", 0, "file") | ("encrypt.format", _, "luks") | ("driver", 1.., "qcow2") => {}
            ("encrypt.key-secret", _, id) => named.passphrases.add(depth, secrets.get(id)?),
            _ => return Err(Usage(format!("there is no image option {name}={value}")).into()),
        }
    }
    if named.path.as_os_str().is_empty() {
        return Err(Usage("image options must have file.filename".to_owned()).into());
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_options_name_a_file_and_its_secrets() {
        let secrets = Secrets::read(&["secret,id=s,data=x".to_owned()]).unwrap();
        let read = |text: &str| read(std::path::Path::new(text), &secrets);
        let named = read("driver=qcow2,encrypt.key-secret=s,backing.encrypt.key-secret=s,file.filename=a,,b").unwrap();
        assert_eq!((named.path, named.format), (PathBuf::from("a,b"), Some(Format::Qcow2)));
        for wrong in ["a.qcow2", "driver=vmdk,file.filename=a", "driver=qcow2", "encrypt.key-secret=t,file.filename=a"]
        {
            assert!(read(wrong).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
