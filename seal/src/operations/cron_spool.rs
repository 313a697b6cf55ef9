//! Users' cron tables and at jobs.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "cron-spool",
    heading: "Remove user at-jobs and cron-jobs",
    enabled: true,
    about: "What users had the machine do later. The directories stay, and so does at's counter `.SEQ`, which begins \
            anew. The system's own tables in `/etc` are left alone.",
    steps: &[
        Step::new(Treatment::RemoveFilesBelow, &["/var/spool/at", "/var/spool/cron"]),
        Step::new(Treatment::RemoveFiles, &["/var/spool/atjobs/*", "/var/spool/atspool/*"]),
        Step::new(Treatment::Edit, COUNTERS),
    ],
    perform: Some(perform),
};

const COUNTERS: &[&str] = &["/var/spool/at/.SEQ", "/var/spool/atjobs/.SEQ", "/var/spool/cron/atjobs/.SEQ"];

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for step in OPERATION.steps {
        match step.treatment {
            Treatment::RemoveFilesBelow => {
                for top in step.patterns {
                    changes.remove_files_below(top.as_bytes(), &|name| name != b".SEQ")?;
                }
            }
            _ => changes.take_step(step)?,
        }
    }
    for counter in COUNTERS {
        if changes.is_plain_file(counter.as_bytes())? {
            changes.edit(counter.as_bytes(), b"00000\n")?;
        }
    }
    Ok(())
}
