//! What scripts rely on: exit codes, streams, and that an error leaves the image as it was.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{oracle_missing, run, small_guest_path, text};

fn goldenseal(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_goldenseal")).args(args).output().unwrap()
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn copy(dir: &Path) -> PathBuf {
    let image = dir.join("a.qcow2");
    std::fs::copy(small_guest_path(), &image).unwrap();
    image
}

#[test]
fn exit_codes_are_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let image = text(&image);
    let code = |args: &[&str]| goldenseal(args).status.code().unwrap();
    assert_eq!(code(&["audit", "-q", image]), 3);
    assert_eq!(code(&["seal", "-q", image]), 0);
    assert_eq!(code(&["audit", "-q", image]), 0);
    assert_eq!(code(&["seal", "-q", image]), 0);
    assert_eq!(code(&["seal", "-q", "/nonexistent"]), 1);
    for wrong in [
        &["seal"][..],
        &["seal", image, "--operations", "no-such-thing"],
        &["seal", image, "--enable", "utmp", "--scriptdir", "/tmp"],
        &["seal", image, image, "-o", "x"],
        &["seal", image, "-o", "x", "--format", "raw", "--compress", "zlib"],
        &["no-such-command"],
    ] {
        assert_eq!(code(wrong), 2, "{wrong:?}");
    }
}

#[test]
fn a_warning_under_strict_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    // Removing certificates leaves work for the guest, which is a warning.
    let out = goldenseal(&["seal", "--strict", text(&image)]);
    assert_eq!(out.status.code(), Some(4), "{}", stderr(&out));
    assert!(stderr(&out).contains("warning:"));
    assert!(std::fs::read(&image).unwrap() == std::fs::read(small_guest_path()).unwrap());
    let out = goldenseal(&["seal", "--strict", "-q", "--operations", "machine-id", text(&image)]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
}

#[test]
fn selected_operations_alone_are_performed() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let names = |args: &[&str]| -> Vec<String> {
        let out = goldenseal(&[&["seal", "-n", "--json", text(&image)], args].concat());
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let operations = report["operations"].as_array().unwrap();
        operations.iter().map(|operation| operation["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--enable", "machine-id,utmp"]), ["machine-id", "utmp"]);
    let defaults = names(&[]);
    assert!(defaults.len() > 30 && !defaults.contains(&"user-account".to_owned()));
    let changed = names(&["--operations", "defaults,-machine-id", "--operations", "user-account"]);
    assert_eq!(changed.len(), defaults.len());
    assert!(changed.contains(&"user-account".to_owned()) && !changed.contains(&"machine-id".to_owned()));
    assert!(names(&["--operations", "-tmp-files"]).is_empty());
}

#[test]
fn the_guest_can_be_looked_at() {
    let image = small_guest_path();
    let image = text(&image);
    let cat = goldenseal(&["cat", image, "/etc/os-release"]);
    assert!(stdout(&cat).contains("ID=goldenseal-example"));
    let ls = goldenseal(&["ls", image, "/etc/ssh"]);
    assert!(stdout(&ls).lines().any(|line| line == "ssh_host_ed25519_key"), "{}", stdout(&ls));
    let long = goldenseal(&["ls", "-l", image, "/"]);
    assert!(stdout(&long).lines().any(|line| line.starts_with("lrwxrwxrwx") && line.ends_with("bin -> usr/bin")));
    let missing = goldenseal(&["ls", image, "/no/such"]);
    assert_eq!(missing.status.code(), Some(1));
    let inspect = goldenseal(&["inspect", "--json", image]);
    let inspect: serde_json::Value = serde_json::from_slice(&inspect.stdout).unwrap();
    assert_eq!(inspect["table"], "gpt");
    assert_eq!(inspect["volumes"][1]["type"], "ext4");
    assert_eq!(inspect["guest"]["mounts"][0]["path"], "/");
    let operations = goldenseal(&["operations"]);
    assert!(stdout(&operations).lines().any(|line| line == "machine-id * Remove the local machine ID"));
    assert!(stdout(&operations).lines().any(|line| line.starts_with("user-account   ")));
    // Names from the guest cannot write control sequences to the terminal.
    let all = goldenseal(&["ls", "-R", image]);
    assert!(all.status.success() && !all.stdout.iter().any(|&byte| byte < 0x20 && byte != b'\n'));
}

#[test]
fn a_reader_who_leaves_early_is_no_error_to_speak_of() {
    let image = small_guest_path();
    for args in [&["ls", "-R", "--json"][..], &["ls", "-R", "-l"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_goldenseal"))
            .args([args, &[text(&image)]].concat())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(stderr(&out), "");
    }
}

#[test]
fn what_would_keep_secrets_is_refused_unless_it_is_said_what_to_do() {
    if oracle_missing("what_would_keep_secrets_is_refused_unless_it_is_said_what_to_do", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let image = text(&image);
    run("qemu-img", &["snapshot", "-c", "before", image]);
    let before = std::fs::read(image).unwrap();
    let refused = goldenseal(&["seal", image]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("before") && stderr(&refused).contains("--snapshots"), "{}", stderr(&refused));
    assert!(std::fs::read(image).unwrap() == before);
    let out = goldenseal(&["seal", "-q", "--snapshots", "keep", image]);
    assert!(out.status.success() && stderr(&out).contains("before"), "{}", stderr(&out));
    assert_eq!(goldenseal(&["audit", "-q", image]).status.code(), Some(3));
    assert!(goldenseal(&["seal", "-q", "--snapshots", "delete", image]).status.success());
    assert_eq!(goldenseal(&["audit", "-q", image]).status.code(), Some(0));
    run("qemu-img", &["check", "-q", image]);

    let base = copy(dir.path());
    let overlay = dir.path().join("overlay.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", text(&overlay)]);
    let refused = goldenseal(&["seal", text(&overlay)]);
    assert!(stderr(&refused).contains("backing file a.qcow2"), "{}", stderr(&refused));
    let flat = dir.path().join("flat.qcow2");
    assert!(goldenseal(&["seal", "-q", text(&overlay), "-o", text(&flat)]).status.success());
    assert_eq!(goldenseal(&["audit", "-q", text(&flat)]).status.code(), Some(0));
    let exists = goldenseal(&["seal", "-q", text(&overlay), "-o", text(&flat)]);
    assert!(stderr(&exists).contains("--force"), "{}", stderr(&exists));
    assert!(goldenseal(&["seal", "-q", text(&overlay), "--backing", "keep"]).status.success());
    assert_eq!(goldenseal(&["audit", "-q", text(&overlay)]).status.code(), Some(3));
    assert!(std::fs::read(base).unwrap() == std::fs::read(small_guest_path()).unwrap());
}

#[test]
fn what_holds_no_guest_is_an_error_that_says_what_it_is() {
    if oracle_missing("what_holds_no_guest_is_an_error_that_says_what_it_is", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&empty), "64M"]);
    let before = std::fs::read(&empty).unwrap();
    let out = goldenseal(&["seal", text(&empty)]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("no guest"), "{}", stderr(&out));
    assert!(std::fs::read(&empty).unwrap() == before);
    let vmdk = dir.path().join("a.vmdk");
    run("qemu-img", &["create", "-q", "-f", "vmdk", text(&vmdk), "64M"]);
    assert!(stderr(&goldenseal(&["seal", text(&vmdk)])).contains("VMDK"));
}

#[test]
fn packages_get_completions_and_manual_pages() {
    let dir = tempfile::tempdir().unwrap();
    let out = goldenseal(&["completions", "bash"]);
    let script = dir.path().join("goldenseal.bash");
    std::fs::write(&script, &out.stdout).unwrap();
    let completed = run(
        "bash",
        &[
            "-c",
            &format!(
                "source '{}'; COMP_WORDS=(goldenseal se); COMP_CWORD=1; _goldenseal goldenseal se goldenseal; echo ${{COMPREPLY[*]}}",
                text(&script)
            ),
        ],
    );
    assert_eq!(stdout(&completed), "seal\n");
    assert!(goldenseal(&["manual-pages", text(dir.path())]).status.success());
    let page = std::fs::read_to_string(dir.path().join("goldenseal-seal.1")).unwrap();
    assert!(page.contains(".TH goldenseal-seal 1") && page.contains("dry\\-run"), "{page}");
    assert_eq!(goldenseal(&["manual-pages", "/nonexistent"]).status.code(), Some(1));
}

#[test]
fn a_suspended_guest_is_refused_unless_its_memory_is_given_up() {
    if oracle_missing("a_suspended_guest_is_refused_unless_its_memory_is_given_up", &["qemu-img", "sfdisk", "mkswap"]) {
        return;
    }
    // The small guest, and swap space after its last partition.
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("a.raw");
    run("qemu-img", &["convert", "-O", "raw", text(&small_guest_path()), text(&disk)]);
    let grown = std::fs::metadata(&disk).unwrap().len() + (4 << 20);
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(grown).unwrap();
    run("sfdisk", &["-q", "--relocate", "gpt-bak-std", text(&disk)]);
    run("bash", &["-c", &format!("echo 'size=1MiB, type=S' | sfdisk -q --append '{}'", text(&disk))]);
    let inspect = |image: &Path| -> serde_json::Value {
        serde_json::from_slice(&goldenseal(&["inspect", "--json", text(image)]).stdout).unwrap()
    };
    let swap = inspect(&disk)["volumes"].as_array().unwrap().last().unwrap()["start"].as_u64().unwrap() as usize;
    let header = dir.path().join("swap");
    std::fs::write(&header, vec![0; 1 << 20]).unwrap();
    run("mkswap", &["-q", text(&header)]);
    let mut header = std::fs::read(&header).unwrap();
    header.copy_within(4086..4096, 4076);
    header[4086..4096].copy_from_slice(b"S1SUSPEND\0");
    header[8192..8200].copy_from_slice(b"a secret");
    let mut bytes = std::fs::read(&disk).unwrap();
    bytes[swap..swap + header.len()].copy_from_slice(&header);
    std::fs::write(&disk, &bytes).unwrap();
    let image = dir.path().join("a.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&disk), text(&image)]);

    let before = std::fs::read(&image).unwrap();
    let refused = goldenseal(&["seal", text(&image)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("suspended to disk, in gpt:3"), "{}", stderr(&refused));
    assert!(std::fs::read(&image).unwrap() == before);
    let audit = goldenseal(&["audit", text(&image)]);
    assert_eq!(audit.status.code(), Some(3));
    assert!(stdout(&audit).contains("gpt:3 holds the memory of a suspended guest"), "{}", stdout(&audit));
    let sealed = goldenseal(&["seal", "--hibernation", "discard", text(&image)]);
    assert!(sealed.status.success() && stderr(&sealed).contains("memory is given up"), "{}", stderr(&sealed));
    let volumes = inspect(&image)["volumes"].clone();
    assert_eq!(volumes.as_array().unwrap().last().unwrap()["type"], "swap");
    assert_eq!(goldenseal(&["audit", "-q", text(&image)]).status.code(), Some(0));
    run("qemu-img", &["check", "-q", text(&image)]);
    run("qemu-img", &["convert", "-O", "raw", text(&image), text(&disk)]);
    assert!(!std::fs::read(&disk).unwrap().windows(8).any(|bytes| bytes == b"a secret"));
}

/// Under the name of another tool the program takes that tool's options.
#[test]
fn a_link_takes_the_options_of_the_tool_that_it_is_named_after() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let link = |name: &str| {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_goldenseal"), &link).unwrap();
        link
    };
    let (sysprep, customize) = (link("virt-sysprep"), link("virt-customize"));
    let run = |tool: &Path, args: &[&str]| Command::new(tool).args(args).output().unwrap();

    let list = stdout(&run(&sysprep, &["--list-operations"]));
    assert_eq!(list.lines().count(), 45);
    // As far as it goes, it is the list of the tool itself, if that is here.
    if let Ok(real) = Command::new("/usr/bin/virt-sysprep").arg("--list-operations").output() {
        for line in stdout(&real).lines() {
            assert!(list.lines().any(|ours| ours == line), "{line}");
        }
    }
    let none = run(&sysprep, &["-q"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        stderr(&none).starts_with("virt-sysprep: error: you must give either -a or -d options."),
        "{}",
        stderr(&none)
    );
    let unknown = run(&sysprep, &["-a", text(&image), "--enable", "foo"]);
    assert_eq!(stderr(&unknown).trim_end(), "virt-sysprep: error: --enable: ‘foo’ is not a known operation");

    let before = std::fs::read(&image).unwrap();
    let dry = run(&sysprep, &["-n", "-a", text(&image), "--format", "qcow2", "-a", text(&image)]);
    assert_eq!(dry.status.code(), Some(1), "two disks are refused");
    let dry = run(&sysprep, &["-n", "--format", "qcow2", "-a", text(&image)]);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(std::fs::read(&image).unwrap() == before);

    let args = ["-a", text(&image), "--operations", "defaults,-ssh-userdir", "--hostname", "a.example", "--network"];
    let done = run(&sysprep, &args);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let said = stdout(&done);
    let steps: Vec<_> = said.lines().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(steps[..2], ["Examining the guest ...", "Performing \"abrt-data\" ..."]);
    assert_eq!(
        steps[steps.len() - 3..],
        ["Performing \"customize\" ...", "Setting the hostname: a.example", "Performing \"lvm-uuids\" ..."]
    );
    assert!(steps.contains(&"Performing \"script\" ...") && !steps.iter().any(|step| step.contains("cloud-init")));
    assert!(said.starts_with("[   0.0] "));

    let domain = dir.path().join("vm.xml");
    let xml = format!(
        "<domain><devices><disk type='file'><driver type='qcow2'/><source file='{}'/></disk></devices></domain>",
        text(&image)
    );
    std::fs::write(&domain, xml).unwrap();
    let done = run(&customize, &["-q", "-d", text(&domain), "--write", "/etc/motd:golden", "--mkdir", "/srv/a"]);
    assert_eq!((done.status.code(), stdout(&done).as_str()), (Some(0), ""), "{}", stderr(&done));
    assert_eq!(stdout(&goldenseal(&["cat", text(&image), "/etc/motd", "/etc/hostname"])), "goldena.example\n");
}

#[test]
fn a_guest_is_customized_in_the_order_given_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let image = text(&image);
    let before = std::fs::read(image).unwrap();
    let failed = goldenseal(&["customize", image, "--write", "/etc/motd:a", "--edit", "/no/file:s/a/b/"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("--edit /no/file failed: /no/file does not exist"), "{}", stderr(&failed));
    assert!(std::fs::read(image).unwrap() == before);
    for wrong in [&["--install", "vim"][..], &["--inject-qemu-ga", "x"], &[], &["--write", "x"]] {
        let out = goldenseal(&[&["customize", image], wrong].concat());
        assert_eq!(out.status.code(), Some(2), "{wrong:?}: {}", stderr(&out));
    }
    let done = goldenseal(&[
        "customize",
        image,
        "--append-line",
        "/etc/motd:two",
        "--write",
        "/etc/motd:one\n",
        "--append-line",
        "/etc/motd:three",
    ]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(stdout(&goldenseal(&["cat", image, "/etc/motd"])), "one\nthree\n");
    if !oracle_missing("a_guest_is_customized_in_the_order_given_or_not_at_all", &["qemu-img"]) {
        run("qemu-img", &["check", "-q", image]);
    }
}

#[test]
fn profiles_presets_and_the_report_for_auditors() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let profile = dir.path().join("profile.toml");
    std::fs::write(
        &profile,
        "preset = \"vagrant\"\noperations = [\"-utmp\"]\ncustomize = [[\"write\", \"/etc/motd:<b>golden\"]]\n\
         [[operation]]\nname = \"own\"\nremove = [\"/etc/shells\"]\nempty = [\"/etc/fstab\"]\nwhen = \"/etc/passwd\"\n",
    )
    .unwrap();
    let page = dir.path().join("report.html");
    let out = goldenseal(&["seal", "--json", text(&image), "--profile", text(&profile), "--report", text(&page)]);
    assert!(out.status.success(), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<_> =
        report["operations"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(!names.contains(&"ssh-userdir") && !names.contains(&"utmp"));
    assert_eq!(names[names.len() - 4..], ["own", "log-sweep", "customize", "lvm-uuids"]);
    // All that went was searched for in the whole image, and is nowhere but in files that stay.
    let residue = &report["residue_search"];
    assert!(residue["searched_for"].as_u64().unwrap() > 20, "{residue}");
    for found in residue["found"].as_array().unwrap() {
        assert!(found["in_files"].as_array().is_some_and(|files| !files.is_empty()), "{found}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("SHA-256 now") && page.contains("ssh-hostkeys") && page.contains("<svg"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    assert_eq!(goldenseal(&["seal", text(&image), "--preset", "nonsense"]).status.code(), Some(2));
    assert_eq!(goldenseal(&["audit", "-q", text(&image), "--profile", text(&profile)]).status.code(), Some(0));
    // What the defaults would do was not done.
    assert_eq!(goldenseal(&["audit", "-q", text(&image)]).status.code(), Some(3));
}

#[test]
fn a_script_changes_the_guest_but_not_in_a_dry_run() {
    let dir = tempfile::tempdir().unwrap();
    let image = copy(dir.path());
    let before = std::fs::read(&image).unwrap();
    let seen = dir.path().join("seen");
    let script = format!("cp etc/os-release {}; echo from-a-script > etc/issue", text(&seen));
    let args = ["seal", "--json", text(&image), "--script", &script];
    let dry = goldenseal(&[&args[..], &["-n"]].concat());
    assert!(dry.status.success() && stderr(&dry).contains("a dry run runs no script"), "{}", stderr(&dry));
    assert!(!seen.exists() && std::fs::read(&image).unwrap() == before);
    let failed = goldenseal(&["seal", "-q", text(&image), "--script", "false"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(std::fs::read(&image).unwrap() == before);
    let done = goldenseal(&args);
    assert!(done.status.success(), "{}", stderr(&done));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let operations = report["operations"].as_array().unwrap();
    let script = operations.iter().find(|one| one["name"] == "script").unwrap();
    assert_eq!(script["changes"][0]["path"], "/etc/issue");
    assert_eq!(stdout(&goldenseal(&["cat", text(&image), "/etc/issue"])), "from-a-script\n");
    assert!(std::fs::read_to_string(seen).unwrap().contains("Goldenseal"));
}

#[test]
fn what_a_snapshot_keeps_is_found_in_the_file() {
    if oracle_missing("what_a_snapshot_keeps_is_found_in_the_file", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("plain.qcow2");
    std::fs::write(&image, common::small_guest(true, dir.path())).unwrap();
    run("qemu-img", &["snapshot", "-c", "old", text(&image)]);
    let out = goldenseal(&["seal", "--json", text(&image), "--snapshots", "keep"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let residue = &report["residue_search"];
    let found = residue["found"].as_array().unwrap();
    let in_the_file =
        found.iter().filter(|one| one["host_offsets"].as_array().is_some_and(|places| !places.is_empty()));
    // Nearly all that was removed is still in the snapshot's clusters, which the disk does not show.
    assert!(in_the_file.count() as u64 > residue["searched_for"].as_u64().unwrap() / 2, "{residue}");
}
