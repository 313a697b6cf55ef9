//! Edits of text files that leave every byte alone but those that have to go.

/// The lines of a text, each with its line end; the last may have none.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
}

/// The text without the lines that `goes` picks.
pub(crate) fn without_lines(text: &[u8], goes: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    lines(text).filter(|line| !goes(line)).flatten().copied().collect()
}

/// The text with each line as `change` makes it: another line, with its line end, or `None` to leave it.
pub(crate) fn with_lines(text: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut changed = Vec::with_capacity(text.len());
    for line in lines(text) {
        match change(line) {
            Some(line) => changed.extend_from_slice(&line),
            None => changed.extend_from_slice(line),
        }
    }
    changed
}

/// A line without its line end.
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a text holds some bytes.
pub(crate) fn holds(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len().max(1)).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_go_change_the_text() {
        let goes = |line: &[u8]| line.starts_with(b"B=");
        assert_eq!(without_lines(b"A=1\r\nB=2\r\n\nC", goes), b"A=1\r\n\nC");
        assert_eq!(without_lines(b"A\nB=2", goes), b"A\n");
        assert_eq!(without_lines(b"", goes), b"");
        assert_eq!(with_lines(b"a\nb", |line| (line == b"b").then(|| b"c".to_vec())), b"a\nc");
        assert_eq!(without_end(b"a\r\n"), b"a");
    }
}
