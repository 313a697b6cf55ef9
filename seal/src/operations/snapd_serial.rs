//! Who snapd is for its store.

use serde_json::Value;

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{GuestPath, Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "snapd-serial",
    heading: "Remove snapd's identity for its store",
    enabled: false,
    about: "The key, the serial number and the session that snapd got when it registered with its store; it registers again \
            at the next boot. Snaps stay. Off by default, since a snap may hold on to the serial number.",
    steps: &[
        Step::new(
            Treatment::RemoveFiles,
            &["/var/lib/snapd/assertions/asserts-v0/serial/*/*/*/active*", "/var/lib/snapd/device/private-keys-v1/*"],
        )
        .source("canonical/snapd, asserts/fskeypairmgr.go and asserts/fsbackstore.go"),
        Step::new(Treatment::Edit, &["/var/lib/snapd/state.json"])
            .source("canonical/snapd, overlord/auth: DeviceState, what devicestate clears when it unregisters"),
    ],
    perform: Some(perform),
};

const STATE: &[u8] = b"/var/lib/snapd/state.json";

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    changes.take_steps()?;
    let Some(text) = changes.read_text(STATE)? else { return Ok(()) };
    let Ok(mut state) = serde_json::from_slice::<Value>(&text) else {
        changes.warn(format!("{} is no JSON and was left", GuestPath::from(STATE)));
        return Ok(());
    };
    let device = state.pointer_mut("/data/auth/device").and_then(Value::as_object_mut);
    let Some(device) = device else { return Ok(()) };
    let mut removed = false;
    for key in ["key-id", "serial", "session-macaroon"] {
        removed |= device.remove(key).is_some();
    }
    match serde_json::to_vec(&state) {
        Ok(text) if removed => changes.edit(STATE, &text),
        _ => Ok(()),
    }
}
