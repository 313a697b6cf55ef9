//! The saved random seed, and that of the boot loader.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "random-seed",
    heading: "Remove the saved random seed",
    enabled: true,
    about: "Clones that begin with the same seed may draw the same keys. The system saves a new one when it shuts down. \
            systemd-boot's own seed, `/loader/random-seed` on an EFI system partition, goes as well, whether that is \
            mounted or not.",
    steps: &[
        Step::new(
            Treatment::RemoveFiles,
            &[
                "/etc/random-seed",
                "/var/lib/misc/random-seed",
                "/var/lib/random-seed",
                "/var/lib/seedrng/*",
                "/var/lib/systemd/random-seed",
                "/var/lib/urandom/random-seed",
            ],
        ),
        Step::new(
            Treatment::RemoveFiles,
            &["/boot/efi/loader/random-seed", "/boot/loader/random-seed", "/efi/loader/random-seed"],
        )
        .if_mounted(),
    ],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    changes.take_steps()?;
    let volumes: Vec<String> = changes.guest().vfat_volumes().map(str::to_owned).collect();
    for volume in volumes {
        match changes.guest_mut().remove_from_vfat(&volume, &["loader", "random-seed"]) {
            Ok(Some(bytes)) => {
                changes.record(format!("{volume}/loader/random-seed").into_bytes(), crate::Action::Removed, bytes);
            }
            Ok(None) => {}
            // Firmware may read it all the same; it is not for us to mend.
            Err(guest::Error::Volumes(error)) => changes.warn(format!("{volume} was not looked into: {error}")),
            Err(error) => return Err(changes.failed(error)),
        }
    }
    Ok(())
}
