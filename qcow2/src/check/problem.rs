//! What a check finds, one by one and counted.

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Space is held that nobody uses: no harm to data.
    Leak,
    /// The image contradicts itself or the format: data may be damaged, or be damaged by further writing.
    Corruption,
    /// A part of the image could not be checked.
    CheckError,
}

/// One thing that is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The structure, as the format's specification names it.
    pub structure: &'static str,
    /// Where it is in the file, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Leak => "leak",
            Severity::Corruption => "corruption",
            Severity::CheckError => "not checked",
        };
        write!(f, "{severity}: {} at offset {:#x}: {}", self.structure, self.offset, self.fault)
    }
}

/// The counts of a check, with the names and the meaning of `qemu-img check --output=json`; a count of 0 is left out
/// where QEMU leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    /// The end of the last cluster of the file that is used, or called used.
    #[serde(skip_serializing_if = "is_zero")]
    pub image_end_offset: u64,
    /// Clusters of the virtual disk.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_clusters: u64,
    /// Parts of the image that could not be checked.
    pub check_errors: u64,
    /// Contradictions.
    #[serde(skip_serializing_if = "is_zero")]
    pub corruptions: u64,
    /// Clusters with a refcount that is too high.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaks: u64,
    /// Contradictions that a repair removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub corruptions_fixed: u64,
    /// Leaks that a repair removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaks_fixed: u64,
    /// Clusters of the virtual disk that have their place in the file.
    #[serde(skip_serializing_if = "is_zero")]
    pub allocated_clusters: u64,
    /// Allocated clusters that do not follow the one before; all compressed ones count.
    #[serde(skip_serializing_if = "is_zero")]
    pub fragmented_clusters: u64,
    /// Allocated clusters that are compressed.
    #[serde(skip_serializing_if = "is_zero")]
    pub compressed_clusters: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.check_errors == 0 && self.corruptions == 0 && self.leaks == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
