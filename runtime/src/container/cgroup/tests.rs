//! Cgroups against folders that pose as cgroupfs: which files are written, with what, in which order.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Cgroup, CgroupError, Flavour, Hierarchy, Layout};

const V1: [&str; 12] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
    "rdma",
];
const V2: &str = "cpuset cpu io memory hugetlb pids rdma misc";

/// A host made of folders.
struct Host {
    folder: TempDir,
    layout: Layout,
}

impl Host {
    fn v1() -> Self {
        Self::new(&V1, None)
    }

    fn v2() -> Self {
        Self::new(&[], Some(V2))
    }

    /// As the one that this was written on: most controllers in v1, one in v2, and a tree that has only a name.
    fn hybrid() -> Self {
        Self::new(&["cpu", "cpuset", "memory", "devices", "freezer", "pids", "name=systemd"], Some("hugetlb"))
    }

    fn new(v1: &[&str], v2: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut hierarchies = Vec::new();
        for name in v1 {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            if *name == "cpuset" {
                fs::write(path.join("cpuset.cpus"), "0-1\n").unwrap();
                fs::write(path.join("cpuset.mems"), "0\n").unwrap();
            }
            hierarchies.push(Hierarchy::v1(path, &[name]));
        }
        if let Some(controllers) = v2 {
            let path = folder.path().join("unified");
            fs::create_dir(&path).unwrap();
            fs::write(path.join("cgroup.controllers"), controllers).unwrap();
            fs::write(path.join("cgroup.subtree_control"), "").unwrap();
            hierarchies.push(Hierarchy::v2(path));
        }
        Self { layout: Layout::at(hierarchies), folder }
    }

    fn create(&self, resources: Value) -> Result<Cgroup, CgroupError> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        Cgroup::create(&self.layout, Path::new("box"), Some(&resources))
    }

    /// Every file that was written below the cgroup `box`, with the values it was given.
    fn written(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for hierarchy in fs::read_dir(self.folder.path()).unwrap() {
            for file in fs::read_dir(hierarchy.unwrap().path().join("box")).unwrap() {
                let path = file.unwrap().path();
                let values = fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>().join(", ");
                lines.push(format!("{} = {values}", path.file_name().unwrap().display()));
            }
        }
        lines.sort();
        lines
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }
}

/// What a host's files say after a cgroup was made with these resources.
fn written(host: &Host, resources: Value) -> Vec<String> {
    let cgroup = host.create(resources).unwrap();
    let written = host.written();
    cgroup.destroy().unwrap();
    written
}

#[test]
fn v1_takes_every_field_in_its_own_file() {
    let resources = json!({
        "cpu": {
            "shares": 512, "quota": 50000, "period": 100_000, "burst": 1000, "idle": 0,
            "realtimeRuntime": 950, "realtimePeriod": 1000, "cpus": "0-1", "mems": "0"
        },
        "memory": {
            "limit": 104_857_600, "swap": 209_715_200, "reservation": 52_428_800, "swappiness": 10,
            "kernelTCP": 4096, "kernel": 1, "disableOOMKiller": true, "useHierarchy": true
        },
        "pids": { "limit": 64 },
        "blockIO": {
            "weight": 500, "leafWeight": 300, "weightDevice": [{ "major": 8, "minor": 0, "weight": 100, "leafWeight": 50 }],
            "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1000 }],
            "throttleWriteBpsDevice": [{ "major": 8, "minor": 0, "rate": 2000 }, { "major": 8, "minor": 16, "rate": 0 }],
            "throttleReadIOPSDevice": [{ "major": 8, "minor": 0, "rate": 30 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 40 }]
        },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }],
        "network": { "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 5 }] },
        "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10000 }, "mlx4_0": { "hcaObjects": 1000 } }
    });
    assert_eq!(
        written(&Host::v1(), resources),
        [
            "blkio.leaf_weight = 300",
            "blkio.leaf_weight_device = 8:0 50",
            "blkio.throttle.read_bps_device = 8:0 1000",
            "blkio.throttle.read_iops_device = 8:0 30",
            "blkio.throttle.write_bps_device = 8:0 2000, 8:16 0",
            "blkio.throttle.write_iops_device = 8:0 40",
            "blkio.weight = 500",
            "blkio.weight_device = 8:0 100",
            "cpu.cfs_burst_us = 1000",
            "cpu.cfs_period_us = 100000",
            "cpu.cfs_quota_us = 50000",
            "cpu.idle = 0",
            "cpu.rt_period_us = 1000",
            "cpu.rt_runtime_us = 950",
            "cpu.shares = 512",
            "cpuset.cpus = 0-1",
            "cpuset.mems = 0",
            "hugetlb.2MB.limit_in_bytes = 4194304",
            "hugetlb.2MB.rsvd.limit_in_bytes = 4194304",
            "memory.kmem.tcp.limit_in_bytes = 4096",
            "memory.limit_in_bytes = 104857600",
            "memory.memsw.limit_in_bytes = 209715200",
            "memory.oom_control = 1",
            "memory.soft_limit_in_bytes = 52428800",
            "memory.swappiness = 10",
            "net_cls.classid = 1048577",
            "net_prio.ifpriomap = eth0 5",
            "pids.max = 64",
            "rdma.max = mlx4_0 hca_object=1000, mlx5_1 hca_handle=3 hca_object=10000",
        ]
    );
}

#[test]
fn v2_has_its_own_words_for_them() {
    let resources = json!({
        "cpu": { "shares": 1024, "quota": 50000, "period": 200_000, "burst": 1000, "idle": 1, "cpus": "0", "mems": "0" },
        "memory": { "limit": 104_857_600, "swap": 209_715_200, "reservation": 52_428_800 },
        "pids": { "limit": 64 },
        "blockIO": {
            "weight": 500, "weightDevice": [{ "major": 8, "minor": 0, "weight": 100 }],
            "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1000 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 0 }]
        },
        "hugepageLimits": [{ "pageSize": "1GB", "limit": -1 }],
        "rdma": { "mlx5_1": { "hcaHandles": 3 } },
        "unified": { "memory.high": "1000000", "cpu.uclamp.min": "20" }
    });
    assert_eq!(
        written(&Host::v2(), resources),
        [
            "cpu.idle = 1",
            "cpu.max = 50000 200000",
            "cpu.max.burst = 1000",
            "cpu.uclamp.min = 20",
            "cpu.weight = 100",
            "cpuset.cpus = 0",
            "cpuset.mems = 0",
            "hugetlb.1GB.max = max",
            "hugetlb.1GB.rsvd.max = max",
            "io.bfq.weight = default 500, 8:0 100",
            "io.max = 8:0 rbps=1000, 8:0 wiops=max",
            "memory.high = 1000000",
            "memory.low = 52428800",
            "memory.max = 104857600",
            "memory.swap.max = 104857600",
            "pids.max = 64",
            "rdma.max = mlx5_1 hca_handle=3",
        ]
    );
}

#[test]
fn a_hybrid_host_writes_each_limit_where_its_controller_lives() {
    let host = Host::hybrid();
    assert_eq!(host.layout.flavour(), Flavour::Hybrid);
    let cgroup =
        host.create(json!({ "pids": { "limit": 5 }, "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] })).unwrap();
    assert_eq!(host.read("pids/box/pids.max"), "5\n");
    assert_eq!(host.read("unified/box/hugetlb.2MB.max"), "0\n");
    assert_eq!(host.read("unified/cgroup.subtree_control"), "+hugetlb");
    assert!(cgroup.clone_into().is_some(), "its v2 tree is entered by birth, as on any other host");
    cgroup.destroy().unwrap();
}

#[test]
fn a_hybrid_host_is_not_asked_for_what_nobody_wants() {
    let host = Host::hybrid();
    host.create(json!({ "pids": { "limit": 5 } })).unwrap().destroy().unwrap();
    assert_eq!(host.read("unified/cgroup.subtree_control"), "");
}

#[test]
fn v2_hands_down_what_is_wanted_and_what_is_counted() {
    let host = Host::v2();
    let resources = serde_json::from_value(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] })).unwrap();
    fs::create_dir(host.at("unified/isolab")).unwrap();
    fs::write(host.at("unified/isolab/cgroup.controllers"), V2).unwrap();
    fs::write(host.at("unified/isolab/cgroup.subtree_control"), "cpu io memory pids").unwrap();
    let cgroup = Cgroup::create(&host.layout, Path::new("isolab/box"), Some(&resources)).unwrap();
    // The posing file keeps the last of five writes; the kernel would add each to its list.
    assert!(host.read("unified/cgroup.subtree_control").starts_with('+'));
    assert_eq!(host.read("unified/isolab/cgroup.subtree_control"), "+hugetlb", "the others were on already");
    assert!(cgroup.clone_into().is_some());
    cgroup.destroy().unwrap();
}

#[test]
fn unlimited_is_minus_one_in_v1_and_max_in_v2() {
    let resources =
        || json!({ "memory": { "limit": -1, "reservation": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 } });
    assert_eq!(
        written(&Host::v1(), resources()),
        [
            "cpu.cfs_quota_us = -1",
            "memory.limit_in_bytes = -1",
            "memory.memsw.limit_in_bytes = -1",
            "memory.soft_limit_in_bytes = -1",
            "pids.max = max"
        ]
        .map(str::to_owned)
        .into_iter()
        // Lifting what was never set is left out where the kernel has no swap accounting.
        .collect::<Vec<_>>()
    );
    assert_eq!(
        written(&Host::v2(), resources()),
        ["cpu.max = max 100000", "memory.low = max", "memory.max = max", "memory.swap.max = max", "pids.max = max"]
    );
}

#[test]
fn zero_means_not_asked_for() {
    let resources = || {
        json!({
            "memory": { "limit": 0, "swap": 0, "reservation": 0 }, "pids": { "limit": 0 },
            "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "" }, "blockIO": { "weight": 0 }
        })
    };
    assert_eq!(written(&Host::v1(), resources()), [""; 0]);
    assert_eq!(written(&Host::v2(), resources()), [""; 0]);
}

#[test]
fn a_limit_goes_down_before_swap_and_up_after_it() {
    let host = Host::v1();
    let cgroup = host.create(json!({ "memory": { "limit": 1000, "swap": 2000 } })).unwrap();
    let standing = &cgroup.folders[3];
    // What the kernel would say now.
    fs::write(host.at("memory/box/memory.memsw.limit_in_bytes"), "2000").unwrap();
    let order = |resources: Value| {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let settings = super::controller::Controller::settings(
            &super::memory::Memory,
            super::Version::V1,
            &resources,
            Some(standing),
        );
        settings.unwrap().into_iter().map(|setting| setting.file.into_owned()).collect::<Vec<_>>()
    };
    let down = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
    let up = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"];
    assert_eq!(order(json!({ "memory": { "limit": 500, "swap": 600 } })), down);
    assert_eq!(order(json!({ "memory": { "limit": 3000, "swap": 4000 } })), up);
    assert_eq!(order(json!({ "memory": { "limit": -1 } })), up);
    cgroup.destroy().unwrap();
}

#[test]
fn an_update_writes_only_what_it_was_asked_for() {
    let host = Host::v2();
    let cgroup = host.create(json!({ "cpu": { "quota": 1000, "period": 50000 }, "pids": { "limit": 5 } })).unwrap();
    fs::write(host.at("unified/box/cgroup.controllers"), V2).unwrap();
    fs::write(host.at("unified/box/cpu.max"), "1000 50000\n").unwrap();
    let update: LinuxResources = serde_json::from_value(json!({ "cpu": { "quota": 2000 } })).unwrap();
    cgroup.apply(&update).unwrap();
    assert_eq!(host.read("unified/box/cpu.max"), "1000 50000\n2000 50000\n");
    assert_eq!(host.read("unified/box/pids.max"), "5\n");
    cgroup.destroy().unwrap();
}

#[test]
fn an_update_below_what_is_in_use_is_refused_when_it_asks_to_check() {
    let host = Host::v1();
    let cgroup = host.create(json!({})).unwrap();
    fs::write(host.at("memory/box/memory.usage_in_bytes"), "5000\n").unwrap();
    let update = |check| -> LinuxResources {
        serde_json::from_value(json!({ "memory": { "limit": 4096, "checkBeforeUpdate": check } })).unwrap()
    };
    assert!(matches!(cgroup.apply(&update(true)), Err(CgroupError::Value { .. })));
    cgroup.apply(&update(false)).unwrap();
    cgroup.destroy().unwrap();
}

#[test]
fn devices_are_written_in_the_order_of_the_list_then_the_defaults() {
    let host = Host::v1();
    let resources = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "access": "r" },
        { "allow": true, "major": 240, "minor": -1, "access": "m" },
    ] });
    assert_eq!(
        written(&host, resources),
        [
            "devices.allow = c 10:229 rw, b 7:* r, b 240:* m, c 240:* m, c *:* m, b *:* m, c 1:3 rwm, c 1:5 rwm, c 1:7 rwm, \
             c 1:8 rwm, c 1:9 rwm, c 5:0 rwm, c 5:2 rwm, c 136:* rwm",
            "devices.deny = a"
        ]
    );
    assert_eq!(written(&host, json!({ "devices": [{ "allow": true, "type": "a" }] })), ["devices.allow = a"]);
}

#[test]
fn values_that_make_no_sense_are_refused_with_their_field() {
    let wrong = [
        json!({ "devices": [{ "allow": true, "access": "rx" }] }),
        json!({ "devices": [{ "allow": true, "type": "p" }] }),
        json!({ "devices": [{ "allow": true, "type": "c", "major": 5_000_000_000_i64 }] }),
        json!({ "hugepageLimits": [{ "pageSize": "../../x", "limit": 1 }] }),
        json!({ "hugepageLimits": [{ "pageSize": "MB", "limit": 1 }] }),
        json!({ "memory": { "limit": 1000, "swap": 500 } }),
        json!({ "unified": { "../memory.max": "1" } }),
        json!({ "unified": { "cgroup.procs": "1" } }),
        json!({ "unified": { "nodot": "1" } }),
    ];
    for resources in wrong {
        let host = Host::v1();
        let error = host.create(resources.clone()).unwrap_err();
        assert!(matches!(error, CgroupError::Value { .. }), "{resources}: {error}");
        assert!(!host.at("memory/box").exists(), "{resources} left its cgroup behind");
    }
}

#[test]
fn what_a_version_has_no_word_for_is_refused() {
    let unsupported = [
        json!({ "memory": { "swappiness": 5 } }),
        json!({ "memory": { "disableOOMKiller": true } }),
        json!({ "cpu": { "realtimeRuntime": 5 } }),
        json!({ "blockIO": { "leafWeight": 5 } }),
        json!({ "memory": { "swap": 500 } }),
    ];
    for resources in unsupported {
        let error = Host::v2().create(resources.clone()).unwrap_err();
        assert!(matches!(error, CgroupError::Unsupported { .. } | CgroupError::Value { .. }), "{resources}: {error}");
    }
    let error = Host::v1().create(json!({ "unified": { "memory.high": "1" } })).unwrap_err();
    assert!(matches!(error, CgroupError::Unsupported { version: "v1", .. }), "{error}");
}

#[test]
fn a_limit_without_its_controller_is_refused_with_a_hint() {
    let host = Host::new(&["cpu"], Some("hugetlb"));
    for resources in [json!({ "pids": { "limit": 5 } }), json!({ "unified": { "memory.high": "1" } })] {
        let error = host.create(resources).unwrap_err();
        assert!(matches!(error, CgroupError::NoController { .. }), "{error}");
        assert!(error.to_string().contains("no such controller here"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_process_enters_every_hierarchy() {
    let host = Host::hybrid();
    let cgroup = host.create(json!({})).unwrap();
    cgroup.adopt(nix::unistd::Pid::from_raw(4242)).unwrap();
    for hierarchy in ["cpu", "cpuset", "memory", "devices", "freezer", "pids", "name=systemd", "unified"] {
        assert_eq!(host.read(&format!("{hierarchy}/box/cgroup.procs")), "4242\n", "{hierarchy}");
    }
    fs::remove_file(host.at("unified/box/cgroup.procs")).unwrap();
    cgroup.destroy().unwrap();
}

#[test]
fn a_thread_goes_through_the_doors_of_v1_and_is_born_inside_v2() {
    let host = Host::hybrid();
    let cgroup = host.create(json!({})).unwrap();
    cgroup.doors().unwrap().enter().unwrap();
    for hierarchy in ["cpu", "cpuset", "memory", "devices", "freezer", "pids", "name=systemd"] {
        assert_eq!(host.read(&format!("{hierarchy}/box/tasks")), "0", "{hierarchy}");
    }
    assert!(!host.at("unified/box/cgroup.procs").exists());
    cgroup.destroy().unwrap();
}

#[test]
fn a_parent_of_ours_lets_cpusets_be_born_full_and_goes_with_the_last() {
    let host = Host::v1();
    let first = Cgroup::create(&host.layout, Path::new("isolab/a"), None).unwrap();
    let second = Cgroup::create(&host.layout, Path::new("isolab/b"), None).unwrap();
    assert_eq!(host.read("cpuset/isolab/cpuset.cpus"), "0-1");
    assert_eq!(host.read("cpuset/isolab/cpuset.mems"), "0");
    assert_eq!(host.read("cpuset/isolab/cgroup.clone_children"), "1");
    first.destroy().unwrap();
    assert!(host.at("memory/isolab/b").exists());
    second.destroy().unwrap();
    for hierarchy in V1 {
        assert!(!host.at(hierarchy).join("isolab").exists(), "{hierarchy}");
    }
}

#[test]
fn a_parent_that_belongs_to_others_stays() {
    let host = Host::v1();
    Cgroup::create(&host.layout, Path::new("/pods/a"), None).unwrap().destroy().unwrap();
    assert!(host.at("memory/pods").exists() && !host.at("memory/pods/a").exists());
}

#[test]
fn dropped_it_is_removed_kept_or_opened_it_stays() {
    let host = Host::v2();
    drop(host.create(json!({})).unwrap());
    assert!(!host.at("unified/box").exists());
    host.create(json!({})).unwrap().keep();
    let opened = Cgroup::open(&host.layout, Path::new("box")).unwrap();
    drop(opened);
    assert!(host.at("unified/box").exists());
    Cgroup::open(&host.layout, Path::new("box")).unwrap().destroy().unwrap();
    assert!(!host.at("unified/box").exists());
}

#[test]
fn opening_what_is_not_there_says_so() {
    let error = Cgroup::open(&Host::v1().layout, Path::new("box")).unwrap_err();
    assert!(matches!(error, CgroupError::Open { .. }), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn an_empty_leftover_gives_way_with_its_old_limits() {
    let host = Host::v1();
    host.create(json!({ "pids": { "limit": 5 } })).unwrap().keep();
    let cgroup = host.create(json!({ "memory": { "limit": 4096 } })).unwrap();
    assert_eq!(host.written(), ["memory.limit_in_bytes = 4096"]);
    cgroup.destroy().unwrap();
}

#[test]
fn a_stranger_s_cgroup_with_others_inside_is_left_alone() {
    let host = Host::v1();
    for hierarchy in V1 {
        fs::create_dir_all(host.at(hierarchy).join("box/child")).unwrap();
    }
    let error = host.create(json!({})).unwrap_err();
    assert!(matches!(error, CgroupError::InUse { .. }), "{error}");
    assert!(host.at("memory/box/child").exists());
    // Below the lab's own parent, what has no process in it is nobody's.
    fs::create_dir_all(host.at("memory/isolab/box/child")).unwrap();
    Cgroup::create(&host.layout, Path::new("isolab/box"), None).unwrap().destroy().unwrap();
    assert!(!host.at("memory/isolab").exists());
}

#[test]
fn processes_are_found_at_every_depth_and_invisible_ones_left_out() {
    let host = Host::v1();
    let cgroup = host.create(json!({})).unwrap();
    let below = host.at("cpu/box/a/b");
    fs::create_dir_all(&below).unwrap();
    fs::write(host.at("cpu/box/cgroup.procs"), "7\n0\n").unwrap();
    fs::write(host.at("cpu/box/a/cgroup.procs"), "").unwrap();
    fs::write(below.join("cgroup.procs"), "8\n").unwrap();
    let pids: Vec<i32> = cgroup.pids().unwrap().into_iter().map(nix::unistd::Pid::as_raw).collect();
    assert_eq!(pids, [7, 8], "0 would mean our own process group to kill(2)");
    fs::write(host.at("cpu/box/cgroup.procs"), "x\n").unwrap();
    assert!(matches!(cgroup.pids(), Err(CgroupError::Understand { .. })));
    cgroup.destroy().unwrap();
}

#[test]
fn a_path_that_leads_elsewhere_makes_nothing() {
    let host = Host::v1();
    for path in ["../box", "/../box", "a/../../box", "", "/"] {
        let error = Cgroup::create(&host.layout, Path::new(path), None).unwrap_err();
        assert!(matches!(error, CgroupError::Path { .. }), "{path:?}: {error}");
    }
}

#[test]
fn a_frozen_v1_cgroup_says_so() {
    let host = Host::v1();
    let cgroup = host.create(json!({})).unwrap();
    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    cgroup.thaw().unwrap();
    assert_eq!(host.read("freezer/box/freezer.state"), "FROZEN\nTHAWED\n");
    cgroup.destroy().unwrap();
}

#[test]
fn both_versions_count_in_the_same_words() {
    let (old, new) = (Host::v1(), Host::v2());
    let old_cgroup = old.create(json!({})).unwrap();
    let new_cgroup = new.create(json!({})).unwrap();
    for (file, text) in [
        ("cpu/box/cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 7000\n"),
        ("cpuacct/box/cpuacct.usage", "9000\n"),
        ("cpuacct/box/cpuacct.usage_user", "6000\n"),
        ("cpuacct/box/cpuacct.usage_sys", "3000\n"),
        ("cpuset/box/cpuset.cpus", "0-1\n"),
        ("memory/box/memory.usage_in_bytes", "8192\n"),
        ("memory/box/memory.memsw.usage_in_bytes", "12288\n"),
        ("memory/box/memory.max_usage_in_bytes", "16384\n"),
        ("memory/box/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/box/memory.failcnt", "4\n"),
        ("memory/box/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ("memory/box/memory.stat", "rss 1\ntotal_rss 4096\ntotal_cache 512\ntotal_inactive_file 256\n"),
        ("pids/box/pids.current", "2\n"),
        ("pids/box/pids.max", "64\n"),
        ("hugetlb/box/hugetlb.2MB.usage_in_bytes", "2097152\n"),
    ] {
        fs::write(old.at(file), text).unwrap();
    }
    for (file, text) in [
        ("cgroup.controllers", V2),
        ("cpu.stat", "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n"),
        ("cpuset.cpus.effective", "0-1\n"),
        ("memory.current", "8192\n"),
        ("memory.swap.current", "4096\n"),
        ("memory.peak", "16384\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n"),
        ("memory.stat", "anon 4096\nfile 512\ninactive_file 256\n"),
        ("pids.current", "2\n"),
        ("pids.max", "64\n"),
        ("hugetlb.2MB.current", "2097152\n"),
    ] {
        fs::write(new.at("unified/box").join(file), text).unwrap();
    }
    let new_again = Cgroup::open(&new.layout, Path::new("box")).unwrap();
    let stats = old_cgroup.stats().unwrap();
    assert_eq!(stats, new_again.stats().unwrap());
    assert_eq!(stats.memory, new_cgroup.stats().unwrap().memory, "its maker knows as much as who finds it later");
    assert_eq!((stats.cpu.usage_ns, stats.memory.limit, stats.memory.oom_kills), (Some(9000), None, Some(1)));
    drop((old_cgroup, new_cgroup));
}

#[test]
fn memory_that_runs_out_is_noticed_once() {
    let host = Host::v2();
    let cgroup = host.create(json!({ "memory": { "limit": 1 << 20 } })).unwrap();
    let events = cgroup.unified().unwrap().path.join("memory.events");
    let killed = |count: u32| fs::write(&events, format!("low 0\nhigh 0\nmax 7\noom 1\noom_kill {count}\n")).unwrap();
    killed(2);
    let mut watch = cgroup.watch_memory().unwrap().unwrap();
    assert!(!watch.ran_out(), "what was before is no news");
    killed(3);
    assert!(watch.ran_out());
    assert!(!watch.ran_out());
}

#[test]
fn what_is_in_force_is_what_the_files_say() {
    for (host, file, limit) in
        [(Host::v1(), "memory.limit_in_bytes", "memory, bytes"), (Host::v2(), "memory.max", "memory, bytes")]
    {
        let cgroup = host.create(json!({ "memory": { "limit": 4096 } })).unwrap();
        let limits = cgroup.in_force().unwrap();
        let found = limits.iter().find(|one| one.limit == limit).unwrap();
        assert_eq!((found.value.as_str(), found.file.ends_with(file)), ("4096", true));
    }
}
