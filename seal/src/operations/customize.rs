//! What a person wants changed besides: the customize options.

use crate::operation::Operation;

/// What errors of a profile's own operations are told by.
pub(crate) static PROFILE: Operation =
    Operation { name: "profile", heading: "", enabled: false, about: "", steps: &[], perform: None };

pub(crate) static OPERATION: Operation = Operation {
    name: "customize",
    heading: "Customize the guest",
    enabled: true,
    about: "Does what the customize options ask for, after all other operations, in the order of the command line. \
            Without such an option it changes nothing: no machine ID is made, and no random seed.",
    steps: &[],
    perform: Some(crate::customize::perform),
};
