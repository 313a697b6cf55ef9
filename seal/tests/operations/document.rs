//! `docs/operations.md` and `docs/customize.md` are what the records say.

use std::path::Path;

/// With `GOLDENSEAL_WRITE_DOCS` in the environment it writes the documents instead.
#[test]
fn documents_are_up_to_date() {
    for (name, wanted) in [("operations.md", seal::operations_markdown()), ("customize.md", seal::customize_markdown())]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("GOLDENSEAL_WRITE_DOCS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "docs/{name} is stale: run this test with GOLDENSEAL_WRITE_DOCS=1");
    }
}

#[test]
fn every_operation_is_in_the_document_and_as_json() {
    let document = seal::operations_markdown();
    for operation in seal::operations() {
        assert!(document.contains(&format!("\n## {}\n", operation.name)));
        let json = serde_json::to_value(operation).unwrap();
        assert_eq!(json["name"], operation.name);
        assert!(matches!(operation.name, "customize" | "script") || json["steps"][0]["patterns"][0].is_string());
        assert!(json.get("perform").is_none());
    }
}
