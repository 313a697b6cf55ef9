//! The customize options, made of the table that the library has of them, so that their order among one another is kept.

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};
use seal::{CUSTOMIZE_OPTIONS, Customization, OptionKind, PasswordCrypto};

use crate::exit_code::Usage;

/// The customize options that were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Customize {
    /// Option and argument, in the order of the command line.
    given: Vec<(&'static str, String)>,
    defer: bool,
    password_crypto: Option<PasswordCrypto>,
}

impl Customize {
    pub(crate) fn new(given: Vec<(&'static str, String)>, password_crypto: Option<PasswordCrypto>) -> Self {
        Self { given, defer: false, password_crypto }
    }

    /// What the options ask for.
    pub(crate) fn customizations(&self) -> Result<Vec<Customization>> {
        let mut customizations = Vec::new();
        for (option, argument) in &self.given {
            let parsed = Customization::parse(option, argument, self.defer);
            customizations.append(&mut parsed.map_err(|error| Usage(error.to_string()))?);
        }
        Ok(customizations)
    }

    pub(crate) fn password_crypto(&self) -> Option<PasswordCrypto> {
        self.password_crypto
    }
}

impl Args for Customize {
    fn augment_args(mut command: Command) -> Command {
        for option in CUSTOMIZE_OPTIONS {
            let arg = Arg::new(option.name).long(option.name).help(option.help).help_heading(HEADING);
            // What only says that it is refused, or needless, is in no help.
            let arg = arg.hide(matches!(option.kind, OptionKind::Windows | OptionKind::Ignored));
            command = command.arg(if option.argument.is_empty() {
                arg.action(ArgAction::Append).num_args(0).default_missing_value("")
            } else {
                arg.action(ArgAction::Append)
                    .value_name(option.argument)
                    .allow_hyphen_values(true)
                    .value_hint(ValueHint::Other)
            });
        }
        let crypto = Arg::new("password-crypto")
            .long("password-crypto")
            .value_name("METHOD")
            .value_parser(PasswordCrypto::parse)
            .help("How passwords are hashed: sha512, sha256, yescrypt [default: as the guest itself would]")
            .help_heading(HEADING);
        let defer = Arg::new("defer")
            .long("defer")
            .action(ArgAction::SetTrue)
            .help("Put --install, --uninstall, --update, --run and --run-command off until the guest first boots")
            .help_heading(HEADING);
        command.arg(crypto).arg(defer)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

const HEADING: &str = "Customizing, in the order given";

impl FromArgMatches for Customize {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for option in CUSTOMIZE_OPTIONS {
            let (Some(indices), Some(values)) =
                (matches.indices_of(option.name), matches.get_many::<String>(option.name))
            else {
                continue;
            };
            given.extend(indices.zip(values).map(|(index, value)| (index, option.name, value.clone())));
        }
        given.sort_by_key(|(index, ..)| *index);
        Ok(Self {
            given: given.into_iter().map(|(_, option, argument)| (option, argument)).collect(),
            defer: matches.get_flag("defer"),
            password_crypto: matches.get_one::<PasswordCrypto>("password-crypto").copied(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
