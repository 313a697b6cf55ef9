//! `file_contexts.subs` and `.subs_dist`: paths that are labelled as if they were others (selabel_file(5)).

/// The lines of one file of substitutions.
#[derive(Debug, Default)]
pub(super) struct Substitutions(Vec<(Vec<u8>, Vec<u8>)>);

impl Substitutions {
    /// Reads lines of two paths; comments and what is no such line are passed over.
    pub(super) fn parse(text: &[u8]) -> Self {
        let lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let (from, to) = (words.next()?, words.next()?);
            (from.starts_with(b"/") && to.starts_with(b"/")).then(|| (from.to_vec(), to.to_vec()))
        });
        Self(lines.collect())
    }

    /// The path to look up in place of `path`, where a line applies to it. The last such line counts.
    pub(super) fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.0.iter().rev().find_map(|(from, to)| {
            let rest = path.strip_prefix(from.as_slice())?;
            if !rest.is_empty() && !rest.starts_with(b"/") {
                return None;
            }
            let to = if to == b"/" { &[][..] } else { to };
            let path = [to, rest].concat();
            Some(if path.is_empty() { b"/".to_vec() } else { path })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Substitutions;

    #[test]
    fn whole_components_are_substituted() {
        let substitutions = Substitutions::parse(b"# /x /y\n/bin /usr/bin\n/srv/root /\nrubbish\n/only\n");
        assert_eq!(substitutions.apply(b"/bin").unwrap(), b"/usr/bin");
        assert_eq!(substitutions.apply(b"/bin/sh").unwrap(), b"/usr/bin/sh");
        assert_eq!(substitutions.apply(b"/binary"), None);
        assert_eq!(substitutions.apply(b"/srv/root/etc").unwrap(), b"/etc");
        assert_eq!(substitutions.apply(b"/srv/root").unwrap(), b"/");
        assert_eq!(substitutions.apply(b"/x"), None);
    }
}
