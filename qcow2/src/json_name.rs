//! Names of backing files in QEMU's `json:` form: which local file they mean, and in which format.
//!
//! Understood is a format driver, `qcow2` or `raw`, over the `file` driver, and the `file` driver alone, with their options
//! nested or joined by dots. Whatever else QEMU could be told there (other protocols, encryption, offsets) is refused by name.

use serde_json::{Map, Value};

/// What a `json:` name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonName {
    pub(crate) filename: String,
    /// `qcow2` or `raw`, where the name says it.
    pub(crate) format: Option<String>,
}

/// Understands a name; nothing where it does not start with `json:`. The error is the reason why it is refused.
pub(crate) fn parse(name: &str) -> Result<Option<JsonName>, String> {
    let Some(text) = name.strip_prefix("json:") else { return Ok(None) };
    let value: Value = serde_json::from_str(text).map_err(|e| format!("its JSON is not valid: {e}"))?;
    let Value::Object(object) = value else { return Err("its JSON is not an object".to_owned()) };
    let mut options = Options::default();
    options.add("", &object)?;
    options.finish().map(Some)
}

#[derive(Default)]
struct Options {
    driver: Option<String>,
    filename: Option<String>,
    file_driver: Option<String>,
    file_filename: Option<String>,
}

impl Options {
    /// Takes the options of an object, all of whose names start with `prefix`.
    fn add(&mut self, prefix: &str, object: &Map<String, Value>) -> Result<(), String> {
        for (key, value) in object {
            let name = format!("{prefix}{key}");
            let place = match name.as_str() {
                "driver" => &mut self.driver,
                "filename" => &mut self.filename,
                "file.driver" => &mut self.file_driver,
                "file.filename" => &mut self.file_filename,
                "file" => {
                    let Value::Object(inner) = value else {
                        return Err("its option \"file\" is not an object".to_owned());
                    };
                    self.add("file.", inner)?;
                    continue;
                }
                other => return Err(format!("its option {other:?} is not understood")),
            };
            let Value::String(text) = value else { return Err(format!("its option {name:?} is not a string")) };
            if place.replace(text.clone()).is_some() {
                return Err(format!("its option {name:?} is given twice"));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<JsonName, String> {
        if let Some(other) = self.file_driver.filter(|driver| driver != "file") {
            return Err(format!("driver {other:?} is not understood where a file is expected"));
        }
        match (self.driver.as_deref(), self.filename, self.file_filename) {
            (Some("file"), Some(filename), None) => Ok(JsonName { filename, format: Some("raw".to_owned()) }),
            (None | Some("qcow2" | "raw"), None, Some(filename)) => Ok(JsonName { filename, format: self.driver }),
            (Some(other), ..) if !["file", "qcow2", "raw"].contains(&other) => {
                Err(format!("its driver {other:?} is neither qcow2 nor raw"))
            }
            _ => Err("it does not name one file".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonName, parse};

    fn name(filename: &str, format: Option<&str>) -> Result<Option<JsonName>, String> {
        Ok(Some(JsonName { filename: filename.to_owned(), format: format.map(str::to_owned) }))
    }

    #[test]
    fn local_files_are_understood_nested_or_dotted() {
        assert_eq!(parse("base.qcow2"), Ok(None));
        for (text, format) in [
            (r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/b"}}"#, Some("qcow2")),
            (r#"json:{"driver":"raw","file":{"filename":"/b"}}"#, Some("raw")),
            (r#"json:{"driver":"qcow2","file.driver":"file","file.filename":"/b"}"#, Some("qcow2")),
            (r#"json:{"file.filename":"/b"}"#, None),
            (r#"json:{"driver":"file","filename":"/b"}"#, Some("raw")),
        ] {
            assert_eq!(parse(text), name("/b", format), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (text, part) in [
            (r#"json:{"driver":"qcow2","file":{"driver":"nbd","host":"h"}}"#, "file.host"),
            (r#"json:{"driver":"qcow2","file":{"driver":"http","filename":"/b"}}"#, "http"),
            (r#"json:{"driver":"vmdk","file.filename":"/b"}"#, "vmdk"),
            (r#"json:{"driver":"raw","offset":512,"file.filename":"/b"}"#, "offset"),
            (r#"json:{"driver":"raw","file":"node"}"#, "not an object"),
            (r#"json:{"driver":"raw","file.filename":"/b","file":{"filename":"/c"}}"#, "twice"),
            (r#"json:{"driver":"raw","file.filename":7}"#, "not a string"),
            (r#"json:{"driver":"raw"}"#, "does not name"),
            (r#"json:{"driver":"file","filename":"/b","file.filename":"/b"}"#, "does not name"),
            (r#"json:{"driver":"qcow2","backing":null,"file.filename":"/b"}"#, "backing"),
            ("json:[]", "not an object"),
            ("json:{", "not valid"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
