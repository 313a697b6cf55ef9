//! What virt-sysprep does not know: state that ties a guest to one machine, kept by programs of their own. One row for
//! each kind, with where it is written down that the program keeps it there.

use crate::operation::{Operation, Step, Treatment};

const fn row(treatment: Treatment, patterns: &'static [&'static str], source: &'static str) -> Step {
    Step::new(treatment, patterns).source(source)
}

const fn operation(
    name: &'static str,
    enabled: bool,
    heading: &'static str,
    about: &'static str,
    steps: &'static [Step],
) -> Operation {
    Operation { name, heading, enabled, about, steps, perform: None }
}

use Treatment::{EmptyDirectories, EmptyFiles, RemoveFiles, RemoveFilesBelow, RemoveRegularFiles, RemoveTrees};

/// The operations that only take their steps.
pub(crate) static STATE_TABLE: &[Operation] = &[
    operation(
        "accountsservice",
        true,
        "Remove what AccountsService keeps of users",
        "Languages, sessions and pictures of the users who logged in. virt-sysprep looks for it in `AccountService`, where nothing is.",
        &[row(
            RemoveFiles,
            &["/var/lib/AccountsService/icons/*", "/var/lib/AccountsService/users/*"],
            "AccountsService, src/util.h: USERDIR and ICONDIR",
        )],
    ),
    operation(
        "agent-ids",
        true,
        "Remove the identities of monitoring and security agents",
        "The agents make new ones, or enrol again. Two machines with one identity are one machine to their servers.",
        &[
            row(
                RemoveFiles,
                &[
                    "/var/lib/auditbeat/meta.json",
                    "/var/lib/filebeat/meta.json",
                    "/var/lib/heartbeat/meta.json",
                    "/var/lib/metricbeat/meta.json",
                    "/var/lib/packetbeat/meta.json",
                ],
                "elastic/beats, libbeat/cmd/instance/beat.go: meta.json in path.data",
            ),
            row(
                RemoveFiles,
                &["/var/lib/netdata/registry/netdata.public.unique.id"],
                "Netdata documentation, registry",
            ),
            row(EmptyFiles, &["/var/ossec/etc/client.keys"], "Wazuh documentation, agent enrolment"),
            row(RemoveFiles, &["/var/lib/teleport/host_uuid"], "gravitational/teleport, lib/utils: HostUUIDFile"),
            row(RemoveFiles, &["/etc/qualys/hostid"], "Qualys Cloud Agent for Linux, cloning an agent host"),
            row(RemoveFiles, &["/etc/tenable_tag"], "Tenable Nessus Agent, preparing an image"),
            row(RemoveTrees, &["/var/osquery/osquery.db"], "osquery documentation, --database_path"),
        ],
    ),
    operation(
        "amazon-ssm",
        true,
        "Remove the registration of the Amazon SSM agent",
        "With it a clone says that it is the machine that was cloned.",
        &[row(
            RemoveTrees,
            &[
                "/var/lib/amazon/ssm/Vault",
                "/var/lib/amazon/ssm/i-*",
                "/var/lib/amazon/ssm/ipc",
                "/var/lib/amazon/ssm/mi-*",
            ],
            "aws/amazon-ssm-agent issue 484, and agent/appconfig/constants_unix.go",
        )],
    ),
    operation(
        "chef-client",
        true,
        "Remove the key of the Chef client",
        "The key that names one node to the Chef server. The validation key, with which a clone gets one of its own, stays.",
        &[row(
            RemoveFiles,
            &["/etc/chef/client.pem", "/etc/cinc/client.pem"],
            "Chef Infra documentation, client.rb: client_key",
        )],
    ),
    operation(
        "cloud-init",
        true,
        "Remove what cloud-init knows of its instance",
        "As `cloud-init clean` does: so that the next boot is that of a new instance. A seed that was put there stays.",
        &[row(RemoveTrees, &["/var/lib/cloud/*", "/run/cloud-init/*"], "cloud-init, cloudinit/cmd/clean.py")
            .except(&["/var/lib/cloud/seed"])],
    ),
    operation(
        "container-ids",
        true,
        "Remove the identities of container engines",
        "Of Docker and containerd, which make new ones. Images and containers stay.",
        &[
            row(
                RemoveFiles,
                &["/etc/docker/key.json", "/var/lib/docker/engine-id"],
                "moby/moby, daemon/id.go and cmd/dockerd",
            ),
            row(
                RemoveFiles,
                &["/var/lib/containerd/io.containerd.grpc.v1.introspection/uuid"],
                "containerd/containerd, plugins/services/introspection",
            ),
        ],
    ),
    operation(
        "coredumps",
        true,
        "Remove core dumps and crash records",
        "They hold the memory of programs, with all secrets in it.",
        &[
            row(RemoveTrees, &["/var/lib/systemd/coredump/*"], "systemd, coredump.conf(5)"),
            row(RemoveTrees, &["/var/lib/systemd/pstore/*"], "systemd, pstore.conf(5)"),
            row(RemoveTrees, &["/var/lib/apport/coredump/*"], "Ubuntu wiki, Apport"),
        ],
    ),
    operation(
        "dhcp-duid",
        true,
        "Remove the DHCP identity and leases of dhcpcd",
        "With the same identity two clones get one address.",
        &[
            row(RemoveFiles, &["/etc/dhcpcd.duid", "/etc/dhcpcd.secret"], "dhcpcd 8, dhcpcd(8), FILES"),
            row(RemoveTrees, &["/var/lib/dhcpcd/*", "/var/lib/dhcpcd5/*"], "dhcpcd(8), FILES; Debian dhcpcd5"),
            row(RemoveFiles, &["/var/lib/dhcpv6/*"], "WIDE-DHCPv6, dhcp6c(8), FILES"),
        ],
    ),
    operation(
        "dnf-countme",
        true,
        "Remove the counters of DNF",
        "How old this installation is, as its mirrors are told. A clone counts for itself.",
        &[row(RemoveFiles, &["/var/lib/dnf/repos/*/countme"], "libdnf, libdnf/repo/Repo.cpp: countme cookie")],
    ),
    operation(
        "editor-history",
        true,
        "Remove the histories of editors and pagers",
        "What was searched for, copied and looked at, in every home directory.",
        &[row(
            RemoveFiles,
            &[
                "~/.lesshst",
                "~/.local/share/nano/search_history",
                "~/.local/state/lesshst",
                "~/.nano/search_history",
                "~/.viminfo",
            ],
            "less(1), LESSHISTFILE; vim, :help viminfo; nano(1), --historylog",
        )],
    ),
    operation(
        "home-caches",
        false,
        "Remove the caches in home directories",
        "What programs may make again, and what was looked at with them. Off by default, for it may take long to make again.",
        &[row(RemoveTrees, &["~/.cache"], "XDG Base Directory Specification, XDG_CACHE_HOME")],
    ),
    operation(
        "hostname",
        false,
        "Remove the host name",
        "`/etc/hostname` is emptied, so that the name comes from DHCP or is localhost. `--hostname` sets one instead.",
        &[row(EmptyFiles, &["/etc/hostname"], "systemd, hostname(5), and BUILDING_IMAGES")],
    ),
    operation(
        "insights-client",
        true,
        "Remove the identity of Red Hat Insights",
        "A clone registers for itself.",
        &[row(
            RemoveFiles,
            &[
                "/etc/insights-client/.lastupload",
                "/etc/insights-client/.registered",
                "/etc/insights-client/machine-id",
            ],
            "RedHatInsights/insights-core, insights/client/constants.py",
        )],
    ),
    operation(
        "installer-files",
        true,
        "Remove what installers left, answers to their questions among it",
        "Answers to installers hold password hashes and keys. debconf's passwords are emptied.",
        &[
            row(EmptyFiles, &["/var/cache/debconf/passwords.dat"], "debconf, debconf.conf: the passwords database"),
            row(RemoveFiles, &["/var/lib/cdebconf/passwords.dat"], "cdebconf, debconf.conf of debian-installer"),
            row(
                RemoveFiles,
                &["/etc/cloud/cloud.cfg.d/99-installer.cfg"],
                "canonical/subiquity, what its clean.d script removes",
            ),
            row(
                RemoveFiles,
                &["/root/ks-post.log", "/root/ks-pre.log", "/root/ks-script-*.log"],
                "Anaconda, kickstart scripts' logs",
            ),
        ],
    ),
    operation(
        "kubernetes-node",
        false,
        "Remove the identity of a Kubernetes node",
        "Certificates and credentials of the kubelet, of k3s and RKE2. The machine has to join its cluster again, so this is off by default.",
        &[
            row(
                RemoveTrees,
                &["/var/lib/kubelet/pki/*", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf"],
                "Kubernetes documentation, kubeadm reset",
            ),
            row(RemoveFiles, &["/etc/rancher/node/password"], "K3s documentation, node registration"),
        ],
    ),
    operation(
        "landscape",
        true,
        "Remove the registration with Landscape",
        "A clone registers for itself.",
        &[row(
            RemoveFiles,
            &["/var/lib/landscape/client/broker.bpickle", "/var/lib/landscape/client/broker.bpickle.old"],
            "canonical/landscape-client, README: broker.bpickle",
        )],
    ),
    operation(
        "lvm-metadata-backups",
        true,
        "Remove the backups of LVM metadata",
        "They hold UUIDs and the host's name; LVM writes new ones.",
        &[row(
            RemoveFiles,
            &["/etc/lvm/archive/*", "/etc/lvm/backup/*", "/etc/lvm/cache/.cache"],
            "lvm2, vgcfgbackup(8) and lvm.conf(5)",
        )],
    ),
    operation(
        "mail-queues",
        true,
        "Remove mail that waits to be sent",
        "A clone would send it once more. The directories of the queues stay.",
        &[
            row(
                RemoveFilesBelow,
                &[
                    "/var/spool/postfix/active",
                    "/var/spool/postfix/bounce",
                    "/var/spool/postfix/corrupt",
                    "/var/spool/postfix/defer",
                    "/var/spool/postfix/deferred",
                    "/var/spool/postfix/flush",
                    "/var/spool/postfix/hold",
                    "/var/spool/postfix/incoming",
                    "/var/spool/postfix/maildrop",
                    "/var/spool/postfix/saved",
                    "/var/spool/postfix/trace",
                ],
                "Postfix, qmgr(8) and postfix-files",
            ),
            row(
                RemoveFilesBelow,
                &[
                    "/var/spool/exim/db",
                    "/var/spool/exim/input",
                    "/var/spool/exim/msglog",
                    "/var/spool/exim4/db",
                    "/var/spool/exim4/input",
                    "/var/spool/exim4/msglog",
                ],
                "Exim specification, chapter 57",
            ),
            row(
                RemoveFilesBelow,
                &["/var/spool/clientmqueue", "/var/spool/mqueue"],
                "sendmail, Installation and Operation Guide",
            ),
        ],
    ),
    operation(
        "mesh-vpn-ids",
        true,
        "Remove the identities of mesh VPNs",
        "Of Tailscale and ZeroTier: with one identity, two machines fight for one place in the network.",
        &[
            row(
                RemoveFiles,
                &["/var/lib/tailscale/tailscaled.state"],
                "tailscale/tailscale, paths/paths.go: DefaultTailscaledStateFile",
            ),
            row(
                RemoveFiles,
                &["/var/lib/zerotier-one/identity.public", "/var/lib/zerotier-one/identity.secret"],
                "ZeroTier documentation, identity files",
            ),
        ],
    ),
    operation(
        "nm-state",
        true,
        "Remove the state of NetworkManager",
        "Leases, the time of each connection, and the key from which it makes addresses and DHCP identities that look random.",
        &[row(
            RemoveFiles,
            &[
                "/var/lib/NetworkManager/*.lease",
                "/var/lib/NetworkManager/secret_key",
                "/var/lib/NetworkManager/seen-bssids",
                "/var/lib/NetworkManager/timestamps",
            ],
            "NetworkManager, NetworkManager.conf(5) and nm-settings(5), stable-id",
        )],
    ),
    operation(
        "opasswd",
        true,
        "Remove the hashes of old passwords",
        "Emptied, and kept as a file, which PAM wants.",
        &[row(EmptyFiles, &["/etc/security/opasswd"], "Linux-PAM, pam_pwhistory(8), FILES")],
    ),
    operation(
        "pollinate",
        true,
        "Have pollinate seed the random numbers again",
        "It does so once for each machine, and would not for a clone.",
        &[row(
            RemoveFiles,
            &["/var/cache/pollinate/seeded", "/var/lib/pollinate/seeded"],
            "pollinate(1), FILES, and its unit's ConditionPathExists",
        )],
    ),
    operation(
        "print-spool",
        true,
        "Remove print jobs",
        "Documents, and who printed them. The directories stay.",
        &[row(
            RemoveFilesBelow,
            &["/var/spool/cups", "/var/spool/lpd"],
            "CUPS, cups-files.conf(5), RequestRoot; lpd(8)",
        )],
    ),
    operation(
        "puppet-agent",
        true,
        "Remove the certificate and state of the Puppet agent",
        "In the places of Puppet 4 and later, which `puppet-data-log` does not know.",
        &[
            row(EmptyDirectories, &["/etc/puppetlabs/puppet/ssl"], "Puppet documentation, ssldir"),
            row(
                EmptyDirectories,
                &[
                    "/opt/puppetlabs/puppet/cache/client_data",
                    "/opt/puppetlabs/puppet/cache/client_yaml",
                    "/opt/puppetlabs/puppet/cache/clientbucket",
                    "/opt/puppetlabs/puppet/cache/state",
                ],
                "Puppet documentation, vardir",
            ),
        ],
    ),
    operation(
        "rhsm-data",
        true,
        "Remove the facts and caches of subscription-manager",
        "What it told of this machine. `rh-subscription-manager` removes its certificates.",
        &[row(
            RemoveFiles,
            &["/var/lib/rhsm/cache/*", "/var/lib/rhsm/facts/*"],
            "candlepin/subscription-manager, src/subscription_manager: CACHE_DIR and FACT_CACHE",
        )],
    ),
    operation(
        "salt-minion",
        true,
        "Remove the identity of the Salt minion",
        "Its name and its keys. The master has to accept each clone.",
        &[row(
            RemoveFiles,
            &[
                "/etc/salt/minion_id",
                "/etc/salt/pki/minion/minion.pem",
                "/etc/salt/pki/minion/minion.pub",
                "/etc/salt/pki/minion/minion_master.pub",
            ],
            "Salt documentation, pki_dir and minion_id",
        )],
    ),
    operation(
        "service-ids",
        false,
        "Remove the identities of cluster services",
        "Of MySQL, Consul and RabbitMQ: what names one member of a cluster. Off by default, since a cluster has to take the clone in. No data goes.",
        &[
            row(RemoveFiles, &["/var/lib/mysql/auto.cnf"], "MySQL documentation, server_uuid"),
            row(RemoveFiles, &["/opt/consul/node-id", "/var/lib/consul/node-id"], "Consul documentation, node_id"),
            row(RemoveFiles, &["/var/lib/rabbitmq/.erlang.cookie"], "RabbitMQ documentation, clustering"),
        ],
    ),
    operation(
        "shell-history",
        true,
        "Remove the histories of shells and interpreters",
        "What was typed, passwords among it, in every home directory. bash and zsh have operations of their own.",
        &[row(
            RemoveFiles,
            &[
                "~/.ash_history",
                "~/.local/share/fish/fish_history",
                "~/.mysql_history",
                "~/.node_repl_history",
                "~/.psql_history",
                "~/.python_history",
                "~/.rediscli_history",
                "~/.sh_history",
                "~/.sqlite_history",
                "~/.wget-hsts",
            ],
            "the manuals of busybox ash, fish, mysql, node, psql, python (site), redis-cli, ksh, sqlite3 and wget",
        )],
    ),
    operation(
        "signing-keys",
        false,
        "Remove the keys that sign kernel modules",
        "A private machine owner key in a template lets whoever has a clone sign modules for all. Off by default: modules that DKMS builds later need a new one, and its enrolment.",
        &[row(
            RemoveFiles,
            &[
                "/var/lib/dkms/mok.key",
                "/var/lib/dkms/mok.pub",
                "/var/lib/shim-signed/mok/MOK.der",
                "/var/lib/shim-signed/mok/MOK.priv",
            ],
            "dkms(8), mok_signing_key; Ubuntu, update-secureboot-policy",
        )],
    ),
    operation(
        "suseconnect",
        true,
        "Remove the registration with SUSE Customer Center",
        "As `SUSEConnect --cleanup` does, but for repositories.",
        &[row(
            RemoveFiles,
            &["/etc/SUSEConnect", "/etc/zypp/credentials.d/SCCcredentials"],
            "SUSE support, document 000019085",
        )],
    ),
    operation(
        "ubuntu-pro",
        true,
        "Remove the token of Ubuntu Pro",
        "A clone attaches for itself.",
        &[row(
            RemoveTrees,
            &[
                "/etc/apt/auth.conf.d/90ubuntu-advantage",
                "/var/lib/ubuntu-advantage/private/*",
                "/var/lib/ubuntu-advantage/machine-token.json",
            ],
            "canonical/ubuntu-pro-client, uaclient/files and uaclient/apt.py",
        )],
    ),
    operation(
        "udev-persistent-cd",
        true,
        "Remove udev persistent rules for optical drives",
        "They bind names to the serial numbers of this machine's drives.",
        &[row(RemoveFiles, &["/etc/udev/rules.d/70-persistent-cd.rules"], "udev before 174, write_cd_rules")],
    ),
    operation(
        "user-credentials",
        false,
        "Remove credentials of cloud and developer tools",
        "In every home directory. Off by default, for they may be meant to be there.",
        &[row(
            RemoveTrees,
            &[
                "~/.aws/credentials",
                "~/.azure",
                "~/.config/gcloud",
                "~/.config/gh/hosts.yml",
                "~/.docker/config.json",
                "~/.git-credentials",
                "~/.gnupg/private-keys-v1.d",
                "~/.kube/config",
                "~/.my.cnf",
                "~/.netrc",
                "~/.npmrc",
                "~/.pgpass",
                "~/.pypirc",
                "~/.vault-token",
            ],
            "the manuals of aws, az, gcloud, gh, docker, git-credential-store, gpg-agent, kubectl, mysql, curl, npm, psql, twine and vault",
        )],
    ),
    operation(
        "vpn-secrets",
        false,
        "Remove the keys of VPNs",
        "Of WireGuard, OpenVPN and strongSwan. Off by default, for without them there is no VPN.",
        &[row(
            RemoveRegularFiles,
            &[
                "/etc/ipsec.d/private/*",
                "/etc/openvpn/*.key",
                "/etc/openvpn/client/*.key",
                "/etc/openvpn/server/*.key",
                "/etc/swanctl/private/*",
                "/etc/wireguard/*.conf",
                "/etc/wireguard/*.key",
            ],
            "wg-quick(8); openvpn(8); strongSwan documentation, swanctl directory",
        )],
    ),
    operation(
        "waagent",
        true,
        "Remove the state of the Azure agent",
        "As `waagent -deprovision` does with its own files: certificates, and what was set for this machine.",
        &[row(
            RemoveTrees,
            &["/var/lib/waagent/*", "/var/log/azure/*"],
            "Azure/WALinuxAgent, azurelinuxagent/pa/deprovision/default.py",
        )],
    ),
    operation(
        "whoopsie-id",
        true,
        "Remove the identity in Ubuntu's crash reports",
        "A new one is made.",
        &[row(RemoveFiles, &["/var/lib/whoopsie/whoopsie-id"], "whoopsie, src/identifier.c")],
    ),
    operation(
        "wtmpdb",
        true,
        "Remove the records of logins",
        "Those of wtmpdb and lastlog2, which take the place of wtmp and lastlog.",
        &[row(
            RemoveFiles,
            &["/var/lib/lastlog/lastlog2.db", "/var/lib/wtmpdb/wtmp.db"],
            "wtmpdb(8); lastlog2(8) of util-linux",
        )],
    ),
    operation(
        "zfs-hostid",
        false,
        "Remove the host ID",
        "ZFS takes a pool with another host ID for another machine's. Off by default, for a root on ZFS may then not be imported.",
        &[row(RemoveFiles, &["/etc/hostid"], "gethostid(3); OpenZFS, spl(4)")],
    ),
];
