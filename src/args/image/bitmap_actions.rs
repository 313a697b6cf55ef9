//! What is to be done to a bitmap: several things, in the order in which they are told.

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

/// One thing to do to a bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BitmapAction {
    Add,
    Remove,
    Clear,
    Enable,
    Disable,
    /// Set all that is set in the bitmap of this name.
    Merge(String),
}

/// What is to be done to a bitmap, in order.
#[derive(Debug, Clone)]
pub(crate) struct BitmapActions(pub(crate) Vec<BitmapAction>);

const FLAGS: [(&str, BitmapAction, &str); 5] = [
    ("add", BitmapAction::Add, "Add a bitmap without dirty bits"),
    ("remove", BitmapAction::Remove, "Remove the bitmap"),
    ("clear", BitmapAction::Clear, "Unset all of its bits"),
    ("enable", BitmapAction::Enable, "Record from now on what is written"),
    ("disable", BitmapAction::Disable, "Record nothing from now on"),
];

impl Args for BitmapActions {
    fn augment_args(command: Command) -> Command {
        let mut command = command;
        for (name, _, help) in FLAGS {
            // Counted, so that the place of each can be asked for.
            command = command.arg(Arg::new(name).long(name).help(help).action(ArgAction::Count));
        }
        let merge = Arg::new("merge").long("merge").value_name("SOURCE").action(ArgAction::Append);
        let group = ArgGroup::new("actions").args(FLAGS.map(|(name, ..)| name)).arg("merge");
        command
            .arg(merge.help("Set all that is set in bitmap SOURCE (may be repeated)"))
            .group(group.required(true).multiple(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BitmapActions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut actions: Vec<(usize, BitmapAction)> = Vec::new();
        for (name, action, _) in FLAGS {
            if matches.get_count(name) > 0 {
                actions.extend(matches.index_of(name).map(|index| (index, action)));
            }
        }
        let sources = matches.get_many::<String>("merge").into_iter().flatten();
        let indices = matches.indices_of("merge").into_iter().flatten();
        actions.extend(indices.zip(sources).map(|(index, source)| (index, BitmapAction::Merge(source.clone()))));
        actions.sort_by_key(|(index, _)| *index);
        Ok(Self(actions.into_iter().map(|(_, action)| action).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
