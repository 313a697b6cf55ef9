//! Presets and profiles: choices that are made once, and kept.

use serde::Deserialize;

use crate::changes::Changes;
use crate::requested::refused;
use crate::{Customization, CustomizationError, Result};

/// What an image is for, and so which operations it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// A template that clones are made of within one house: the defaults.
    Template,
    /// An image for a cloud, where cloud-init names each clone.
    Cloud,
    /// A Vagrant box: the key that Vagrant logs in with stays.
    Vagrant,
    /// A virtual appliance for customers: what its makers left of themselves goes, too.
    Appliance,
    /// An image for everybody: all that may be somebody's secret goes.
    Share,
}

impl Preset {
    /// All presets, with their names.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("template", Self::Template),
        ("cloud", Self::Cloud),
        ("vagrant", Self::Vagrant),
        ("appliance", Self::Appliance),
        ("share", Self::Share),
    ];

    /// The operations, in the grammar of `--operations`.
    #[must_use]
    pub const fn operations(self) -> &'static str {
        match self {
            Self::Template => "defaults",
            Self::Cloud => "defaults,hostname",
            Self::Vagrant => "defaults,-ssh-userdir,-ssh-authorized-keys",
            Self::Appliance => "defaults,hostname,home-caches,service-ids,user-credentials",
            Self::Share => {
                "defaults,hostname,home-caches,kubernetes-node,service-ids,signing-keys,user-credentials,vpn-secrets"
            }
        }
    }
}

/// A profile: a file in TOML.
///
/// ```
/// let profile = seal::Profile::parse(r#"
///     preset = "cloud"
///     operations = ["-ssh-userdir"]
///     customize = [["timezone", "Etc/UTC"]]
///
///     [[operation]]
///     name = "acme-agent"
///     when = "/usr/bin/acme"
///     remove = ["/var/lib/acme/*", "~/.acme"]
///     empty = ["/etc/acme/id"]
/// "#)?;
/// assert_eq!(profile.preset, Some(seal::Preset::Cloud));
/// assert_eq!(profile.custom_operations[0].name, "acme-agent");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Profile {
    /// Where the choice of operations begins.
    pub preset: Option<Preset>,
    /// What is added to it, and after a `-` taken from it.
    pub operations: Vec<String>,
    /// Customize options, each with its argument.
    pub customize: Vec<Vec<String>>,
    /// Operations of its own.
    #[serde(rename = "operation")]
    pub custom_operations: Vec<CustomOperation>,
}

/// An operation that a profile defines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CustomOperation {
    /// Its name, for the report.
    pub name: String,
    /// If given: only in a guest where this path exists.
    #[serde(default)]
    pub when: Option<String>,
    /// What is removed, with all below: patterns, as those of other operations.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Which files are cut to length 0.
    #[serde(default)]
    pub empty: Vec<String>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for operation in &profile.custom_operations {
            let name = &operation.name;
            if name.is_empty() || crate::operation(name).is_some() {
                return Err(format!("'{name}' cannot be the name of an operation of its own"));
            }
            let patterns = operation.remove.iter().chain(&operation.empty).chain(&operation.when);
            for pattern in patterns {
                if !(pattern.starts_with('/') || pattern.starts_with("~/")) || pattern.trim_end_matches('/').len() < 2 {
                    return Err(format!("operation '{name}': '{pattern}' is no absolute path"));
                }
            }
        }
        Ok(profile)
    }

    /// The customizations that it asks for.
    ///
    /// # Errors
    /// [`CustomizationError`].
    pub fn customizations(&self, defer: bool) -> Result<Vec<Customization>, CustomizationError> {
        let mut all = Vec::new();
        for option in &self.customize {
            let name = option.first().map_or("", String::as_str);
            let argument = option.get(1).map_or("", String::as_str);
            all.append(&mut Customization::parse(name, argument, defer)?);
        }
        Ok(all)
    }
}

impl CustomOperation {
    pub(crate) fn perform(&self, changes: &mut Changes<'_>) -> Result<()> {
        if let Some(when) = &self.when
            && changes.stat(when.as_bytes())?.is_none()
        {
            return Ok(());
        }
        for (patterns, removes) in [(&self.remove, true), (&self.empty, false)] {
            for pattern in patterns {
                if pattern.starts_with('/') {
                    // As far as it names one place.
                    let fixed = pattern.split(['*', '?', '[', '{']).next().unwrap_or(pattern);
                    changes.check_path(fixed.as_bytes())?;
                }
                for path in changes.glob(pattern)? {
                    if path == b"/" {
                        return refused("the root directory cannot be removed");
                    }
                    if removes {
                        changes.remove_tree(&path)?;
                    } else {
                        changes.empty_file(&path)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Argument, Selection};

    #[test]
    fn every_preset_names_operations_that_exist() {
        for (name, preset) in Preset::ALL {
            let selection = Selection::from_arguments(&[Argument::Operations(preset.operations())]).unwrap();
            assert!(selection.contains("machine-id"), "{name}");
            let profile = Profile::parse(&format!("preset = \"{name}\"")).unwrap();
            assert_eq!(profile.preset, Some(*preset));
        }
    }

    #[test]
    fn what_is_wrong_in_a_profile_is_said() {
        for (text, said) in [
            ("presets = 1", "presets"),
            ("preset = \"golden\"", "golden"),
            ("[[operation]]\nname = \"machine-id\"", "machine-id"),
            ("[[operation]]\nname = \"x\"\nremove = [\"relative\"]", "relative"),
            ("[[operation]]\nname = \"x\"\nremove = [\"/\"]", "'/'"),
            ("operations = \"x", "line 1"),
        ] {
            let error = Profile::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
