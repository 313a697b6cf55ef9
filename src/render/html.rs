//! The report as one page that needs nothing else, for whoever has to sign that an image is clean.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use block::{ExtentKind, ReadAt};
use seal::Action;
use sha2::{Digest as _, Sha256};

use super::ImageReport;
use super::text::bytes;

/// What a page tells besides the report.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) hash_before: String,
    pub(crate) hash_after: String,
    pub(crate) map_before: Vec<u8>,
    pub(crate) map_after: Vec<u8>,
}

/// How many cells the picture of a disk has.
const CELLS: u64 = 640;

/// How much of each part of a disk holds anything, from 0 to 255.
pub(crate) fn picture(disk: &dyn ReadAt) -> Result<Vec<u8>> {
    let mut held = vec![0_u64; CELLS as usize];
    let cell_len = disk.len().div_ceil(CELLS).max(1);
    let mut at = 0;
    while at < disk.len() {
        let extent = disk.extent_at(at, disk.len() - at)?;
        let end = at + extent.len.max(1);
        if extent.kind == ExtentKind::Data {
            let mut start = at;
            while start < end {
                let cell = start / cell_len;
                let stop = ((cell + 1) * cell_len).min(end);
                if let Some(held) = held.get_mut(cell as usize) {
                    *held += stop - start;
                }
                start = stop;
            }
        }
        at = end;
    }
    Ok(held.into_iter().map(|held| (held * 255 / cell_len).min(255) as u8).collect())
}

/// The SHA-256 of a file.
pub(crate) fn hash(path: &Path) -> Result<String> {
    let reading = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let got = file.read(&mut buf).with_context(reading)?;
        if got == 0 {
            break;
        }
        hasher.update(&buf[..got]);
    }
    Ok(hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// Writes the page.
pub(crate) fn write(path: &Path, report: &ImageReport, evidence: &Evidence) -> Result<()> {
    std::fs::write(path, page(report, evidence)).with_context(|| format!("cannot write {}", path.display()))
}

fn page(report: &ImageReport, evidence: &Evidence) -> String {
    let mut text = String::new();
    let title = format!("Sealing of {}", report.image);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{0}</title>\n<style>{STYLE}</style></head>\n\
         <body><main>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    summary(&mut text, report, evidence);
    pictures(&mut text, evidence);
    residue(&mut text, report);
    list(&mut text, "Warnings", &report.warnings);
    list(&mut text, "Notes", &report.notes);
    operations(&mut text, report);
    edits(&mut text, report);
    text.push_str("</main></body></html>\n");
    text
}

fn summary(text: &mut String, report: &ImageReport, evidence: &Evidence) {
    let changes = report.operations.iter().map(|operation| operation.changes.len()).sum::<usize>();
    let state = if report.committed { "written" } else { "a dry run: nothing was written" };
    let rows = [
        ("Guest", format!("{} on {}", report.guest.name, report.guest.root)),
        ("State", state.to_owned()),
        ("Changes", changes.to_string()),
        ("Unused space made zero", bytes(report.scrubbed.bytes_zeroed)),
        (
            "Size of the file",
            format!(
                "{} before, {} now",
                bytes(report.scrubbed.host_bytes_before),
                bytes(report.scrubbed.host_bytes_after)
            ),
        ),
        ("SHA-256 before", evidence.hash_before.clone()),
        ("SHA-256 now", evidence.hash_after.clone()),
        ("Made by", format!("goldenseal {}", env!("CARGO_PKG_VERSION"))),
    ];
    text.push_str("<table class=\"facts\">");
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(text, "<tr><th>{name}</th><td>{}</td></tr>", escape(value));
    }
    text.push_str("</table>\n");
}

fn pictures(text: &mut String, evidence: &Evidence) {
    text.push_str(
        "<h2>The disk</h2>\n<p>From its first byte to its last: the darker, the more of it holds data.</p>\n",
    );
    for (name, map) in [("before", &evidence.map_before), ("now", &evidence.map_after)] {
        if map.is_empty() {
            continue;
        }
        let _ = write!(text, "<figure><figcaption>{name}</figcaption><svg viewBox=\"0 0 {CELLS} 40\" role=\"img\">");
        for (at, value) in map.iter().enumerate().filter(|(_, value)| **value > 0) {
            let opacity = f64::from(*value) / 255.0;
            let _ = write!(text, "<rect x=\"{at}\" width=\"1.05\" height=\"40\" fill-opacity=\"{opacity:.2}\"/>");
        }
        text.push_str("</svg></figure>\n");
    }
}

fn residue(text: &mut String, report: &ImageReport) {
    let Some(residue) = &report.residue_search else { return };
    let _ = write!(
        text,
        "<h2>What was searched for</h2>\n<p>{} traces of what was removed were searched for in {}. {}</p>\n",
        residue.searched_for,
        bytes(residue.bytes_searched),
        if residue.found.is_empty() { "None was found." } else { "These were found:" }
    );
    if !residue.shipped.is_empty() {
        let _ = writeln!(
            text,
            "<p>Bytes of {} more are in files that came with the system, below <code>/usr</code>, as in every system of the \
             kind.</p>",
            residue.shipped.len()
        );
    }
    if residue.found.is_empty() {
        return;
    }
    text.push_str("<table><tr><th>Bytes of</th><th>are in</th></tr>");
    for found in &residue.found {
        let files: Vec<_> = found.in_files.iter().map(ToString::to_string).collect();
        let place = match (files.as_slice(), found.disk_offsets.first(), found.host_offsets.first()) {
            ([], Some(offset), _) => format!("no file: byte {offset} of the disk"),
            ([], None, Some(offset)) => format!("byte {offset} of the image's file"),
            _ => files.join(", "),
        };
        let _ = write!(text, "<tr><td>{}</td><td>{}</td></tr>", escape(&found.removed), escape(&place));
    }
    text.push_str("</table>\n");
}

fn list(text: &mut String, heading: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(text, "<h2>{heading}</h2>\n<ul>");
    for item in items {
        let _ = write!(text, "<li>{}</li>", escape(item));
    }
    text.push_str("</ul>\n");
}

fn operations(text: &mut String, report: &ImageReport) {
    text.push_str("<h2>Operations</h2>\n");
    for operation in &report.operations {
        let record = seal::operation(&operation.name);
        let heading = record.map_or("", |record| record.heading);
        let count = operation.changes.len();
        let _ = write!(
            text,
            "<details{}><summary><b>{}</b> <span>{}</span> <i>{count}</i></summary>",
            if count > 0 { "" } else { " class=\"idle\"" },
            escape(&operation.name),
            escape(heading)
        );
        if let Some(record) = record {
            let _ = write!(text, "<p>{}</p>", escape(record.about));
        }
        if count > 0 {
            text.push_str("<table><tr><th>Path</th><th>Action</th><th>Bytes</th></tr>");
            for change in &operation.changes {
                let _ = write!(
                    text,
                    "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>",
                    escape(&change.path.to_string()),
                    action(change.action),
                    change.bytes
                );
            }
            text.push_str("</table>");
        }
        text.push_str("</details>\n");
    }
}

fn edits(text: &mut String, report: &ImageReport) {
    if report.edits.is_empty() {
        return;
    }
    text.push_str("<h2>Edits</h2>\n<p>Lines that went and lines that came; what may be secret is masked.</p>\n");
    for edit in &report.edits {
        let _ = write!(text, "<h3>{}</h3>\n<pre>", escape(&edit.path.to_string()));
        for (sign, class, lines) in [('-', "went", &edit.removed), ('+', "came", &edit.added)] {
            for line in lines {
                let _ = writeln!(text, "<span class=\"{class}\">{sign} {}</span>", escape(line));
            }
        }
        text.push_str("</pre>\n");
    }
}

fn action(action: Action) -> &'static str {
    super::text::verb(action)
}

/// Text as HTML. Names come from a guest, which may mean harm.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in super::escape(text).replace("\\\\", "\\").chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;background:#faf8f2;margin:0}main{max-width:60rem;\
margin:0 auto;padding:2rem 1rem}h1{font-size:1.5rem}h2{margin-top:2rem;border-bottom:1px solid #d8d0b8}table{border-collapse:\
collapse;width:100%}th,td{text-align:left;padding:.15rem .6rem .15rem 0;vertical-align:top;overflow-wrap:anywhere}.facts th{\
width:13rem;font-weight:600}.number{text-align:right}details{border-bottom:1px solid #e6e0cc;padding:.2rem 0}summary{cursor:\
pointer}summary i{float:right;font-style:normal}.idle{color:#8a8674}figure{margin:.5rem 0}svg{width:100%;height:40px;background:\
#eee8d5;fill:#8a6d00}pre{background:#fff;padding:.5rem;overflow-x:auto;border:1px solid #e6e0cc}.went{color:#a02020}.came{color:\
#1c6b2a}@media print{details{break-inside:avoid}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_guest_is_markup() {
        assert_eq!(escape("<script>\"'&\u{1b}"), "&lt;script&gt;&quot;&#39;&amp;\\x1b");
    }
}
