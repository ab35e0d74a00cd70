//! Precedence, forms and refusals of the configuration.

use std::collections::BTreeSet;
use std::io::Write;

use super::*;

fn args(flags: &[&str]) -> ServeArgs {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }
    let all = std::iter::once(&"serve").chain(flags);
    <Command as clap::Parser>::try_parse_from(all)
        .unwrap()
        .serve
}

fn load(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_sources(&args(flags), environment).map_err(|error| error.0)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_file(text: &str) -> Result<Config, String> {
    let file = file(text);
    let path = file.path().to_str().unwrap().to_owned();
    load(&["--config", &path], &[]).map_err(|error| error.replace(&path, "FILE"))
}

/// Value and origin of a name.
fn effective(config: &Config, name: &str) -> (String, String) {
    let row = config
        .effective()
        .iter()
        .find(|row| row.name == name)
        .unwrap();
    (
        row.value.clone().unwrap_or_else(|| "-".to_owned()),
        row.origin.to_string(),
    )
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.to_owned(), origin.to_owned())
}

#[test]
fn without_arguments_everything_has_a_default() {
    let others = [
        ("HOME", "/root"),
        ("FOREBAY_LISTEN", ""),
        ("FOREBAY_BOOTSTRAP", "b:9092"),
    ];
    let config = load(&[], &others).unwrap();
    assert_eq!(config.listen, "127.0.0.1:9092".parse().unwrap());
    assert_eq!(config.data_dir, PathBuf::from("./forebay-data"));
    assert_eq!(
        (config.io, config.node_id, config.advertise.clone()),
        (IoBackend::Auto, NodeId(1), None)
    );
    assert!(!config.shards.cpus.is_empty());
    let logging = Logging {
        level: "info".to_owned(),
        format: LogFormat::Text,
        file: None,
    };
    assert_eq!(config.logging, logging);
    assert_eq!(
        effective(&config, "listen"),
        pair("127.0.0.1:9092", "default")
    );
    assert_eq!(
        effective(&config, "log.retention.hours"),
        pair("168", "default")
    );
    assert_eq!(effective(&config, "log.retention.ms"), pair("-", "default"));
    let names: Vec<_> = config.effective().iter().map(|row| row.name).collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert!(!names.contains(&"node.id"), "set by --node-id");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = file("num.partitions: 2\nio: posix\n\nnode-id: 3\nlog.roll.hours: 4\n");
    let path = file.path().to_str().unwrap();
    let environment = [
        ("FOREBAY_CONFIG", path),
        ("FOREBAY_NUM_PARTITIONS", "5"),
        ("FOREBAY_NODE_ID", "6"),
        ("FOREBAY_IO", "auto"),
    ];
    let flags = ["--set", "num.partitions=7", "--node-id", "8"];
    let config = load(&flags, &environment).unwrap();
    assert_eq!(
        effective(&config, "num.partitions"),
        pair("7", "flag --set")
    );
    assert_eq!(effective(&config, "node-id"), pair("8", "flag --node-id"));
    assert_eq!(config.node_id, NodeId(8));
    let variable = pair("auto", "environment variable FOREBAY_IO");
    assert_eq!(effective(&config, "io"), variable);
    let line = format!("{path} line 5");
    assert_eq!(effective(&config, "log.roll.hours"), pair("4", &line));
    assert_eq!(effective(&config, "log.roll.ms"), pair("-", "default"));

    let other = self::file("io: uring\n");
    let flags = ["--config", other.path().to_str().unwrap()];
    let config = load(&flags, &environment[..1]).unwrap();
    assert_eq!(
        config.io,
        IoBackend::Uring,
        "--config wins over FOREBAY_CONFIG"
    );
}

#[test]
fn every_form_of_yaml_value_is_understood() {
    let config = load_file(
        "# A comment.\nlisten: '[::1]:9093'\nauto.create.topics.enable: false\n\
         log.retention.ms: -1\nlog.cleanup.policy:\n  - compact\n  - delete\n\
         log.cleaner.min.cleanable.ratio: 0.25\nbroker.rack: \"rack 1\"\n",
    )
    .unwrap();
    assert!(config.listen.is_ipv6());
    let value = |name| effective(&config, name).0;
    assert_eq!(value("auto.create.topics.enable"), "false");
    assert_eq!(value("log.retention.ms"), "-1");
    assert_eq!(value("log.cleanup.policy"), "compact,delete");
    assert_eq!(value("log.cleaner.min.cleanable.ratio"), "0.25");
    assert_eq!(value("broker.rack"), "rack 1");
    assert!(load_file("").is_ok() && load_file("# nothing\n").is_ok());
}

#[test]
fn bad_files_are_refused_in_one_sentence() {
    let refusal = |text: &str| {
        let refusal = load_file(text).err().unwrap_or_default();
        assert!(!refusal.contains('\n') && refusal.len() < 300, "{refusal}");
        refusal
    };
    assert_eq!(
        refusal("io: auto\nnum.partition: 1\n"),
        "Unknown setting in FILE line 2: num.partition; did you mean num.partitions?"
    );
    assert_eq!(
        refusal("data_dir: x\n"),
        "Unknown setting in FILE line 1: data_dir; did you mean data-dir?"
    );
    assert_eq!(
        refusal("retention.ms: 1\n"),
        "retention.ms (FILE line 1) is a setting of topics: for all topics set log.retention.ms."
    );
    assert_eq!(
        refusal("node.id: 1\n"),
        "node.id (FILE line 1) is set by --node-id (in a settings file by `node-id`)."
    );
    assert_eq!(
        refusal("io:\n"),
        "io in FILE line 1 has no value: give one or drop it."
    );
    assert_eq!(
        refusal("num.partitions: many\n"),
        "Invalid value many for configuration num.partitions: Not a number of type INT (FILE line \
         1)."
    );
    for text in [
        "- a\n",
        "io: {a: b}\n",
        "io: auto\nio: auto\n",
        "a: [\n",
        "just text",
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with("The settings file FILE cannot be read: "),
            "{refusal}"
        );
    }
    let missing = load(&["--config", "/nowhere/forebay.yaml"], &[]).unwrap_err();
    assert!(missing.starts_with("The settings file /nowhere/forebay.yaml cannot be read: No such"));
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    assert_eq!(
        load(&[], &[("FOREBAY_NUM_PARTITION", "1")]).unwrap_err(),
        "Unknown environment variable FOREBAY_NUM_PARTITION; did you mean FOREBAY_NUM_PARTITIONS?"
    );
    assert_eq!(
        load(&["--set", "message.max.byte=1"], &[]).unwrap_err(),
        "Unknown setting in --set: message.max.byte; did you mean message.max.bytes?"
    );
    assert_eq!(
        load(&["--set", "zookeeper.connect=a"], &[]).unwrap_err(),
        "Unknown setting in --set: zookeeper.connect; `forebay config` lists all there are."
    );
    assert_eq!(
        load(&["--set", "num.partitions"], &[]).unwrap_err(),
        "--set num.partitions has no value: write --set NAME=VALUE."
    );
}

#[test]
fn bad_values_name_their_source_and_the_fix() {
    let cases = [
        (
            ["--io", "epoll"],
            "io = epoll (flag --io) must be auto, uring or posix.",
        ),
        (
            ["--listen", "9092"],
            "listen = 9092 (flag --listen) must be HOST:PORT, such as 127.0.0.1:9092 or \
             [::1]:9092.",
        ),
        (
            ["--advertise", "a b:1"],
            "advertise = a b:1 (flag --advertise) must be HOST:PORT, such as 127.0.0.1:9092 or \
             [::1]:9092.",
        ),
        (
            ["--node-id", "-1x"],
            "node-id = -1x (flag --node-id) must be a number from 0 to 2147483647.",
        ),
        (
            ["--log-format", "xml"],
            "log-format = xml (flag --log-format) must be text or json.",
        ),
        (
            ["--cores", "0"],
            "cores = 0 (flag --cores) asks for no shard at all; to name CPU 0 write 0-0.",
        ),
        (
            ["--cores", "9999-9999"],
            "cores = 9999-9999 (flag --cores) names CPU 9999, but this process may use CPUS.",
        ),
        (
            ["--poll-us", "10001"],
            "poll-us = 10001 (flag --poll-us) must be a number of microseconds from 0 to 10000; \
             50 is much.",
        ),
        (
            ["--poll-us", "-1"],
            "poll-us = -1 (flag --poll-us) must be a number of microseconds from 0 to 10000; 50 is \
             much.",
        ),
        (
            ["--ring-entries", "1000"],
            "ring-entries = 1000 (flag --ring-entries) must be a power of two from 8 to 32768.",
        ),
        (
            ["--ring-entries", "65536"],
            "ring-entries = 65536 (flag --ring-entries) must be a power of two from 8 to 32768.",
        ),
        (
            ["--admin-listen", "9644"],
            "admin-listen = 9644 (flag --admin-listen) must be HOST:PORT, such as 127.0.0.1:9092 \
             or [::1]:9092.",
        ),
        (
            ["--data-dir", ""],
            "data-dir =  (flag --data-dir) must be a path.",
        ),
        (
            ["--log-level", "forebay=loud"],
            "log-level = forebay=loud (flag --log-level) must be error, warn, info, debug, trace \
             or a filter like info,forebay::log=debug.",
        ),
    ];
    let loud = load(&["--log-level", "loud"], &[]).unwrap_err();
    assert!(loud.contains("must be error, warn, info"), "{loud}");
    assert!(load(&["--log-level", "warn,forebay::log=debug"], &[]).is_ok());
    let why = load(&["--io", "posix", "--ring-entries", "64"], &[]).unwrap_err();
    assert!(
        why.contains("ring-entries (flag --ring-entries) is of no use"),
        "{why}"
    );
    let allowed = cores::allowed_cpus();
    let allowed: Vec<_> = allowed.iter().map(usize::to_string).collect();
    let allowed = allowed.join(",");
    for ([flag, value], sentence) in cases {
        let flag = format!("{flag}={value}");
        assert_eq!(
            load(&[&flag], &[]).unwrap_err(),
            sentence.replace("CPUS", &allowed)
        );
    }
    assert_eq!(
        load(&[], &[("FOREBAY_NODE_ID", "x")]).unwrap_err(),
        "node-id = x (environment variable FOREBAY_NODE_ID) must be a number from 0 to 2147483647."
    );
}

#[test]
fn addresses_take_names() {
    let config = load(&["--listen", "localhost:0"], &[]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:0".parse().unwrap());
    let config = load(&["--advertise", "broker.example:9092"], &[]).unwrap();
    assert_eq!(config.advertise, Some(("broker.example".to_owned(), 9092)));
    let config = load(&["--advertise", "[::1]:9092"], &[]).unwrap();
    assert_eq!(config.advertise, Some(("::1".to_owned(), 9092)));
}

#[test]
fn the_identity_holds_what_tools_ask_for() {
    let flags = [
        "--set",
        "num.partitions=4",
        "--advertise",
        "b:1",
        "--data-dir",
        "/d",
    ];
    let config = load(&flags, &[]).unwrap();
    let identity = config.identity("c".to_owned(), &["127.0.0.1:7".parse().unwrap()]);
    assert_eq!(
        (identity.node_id, identity.cluster_id.as_str()),
        (NodeId(1), "c")
    );
    assert_eq!(identity.advertised, Some(("b".to_owned(), 1)));
    let expected = [
        ("advertised.listeners", "PLAINTEXT://b:1"),
        ("listeners", "PLAINTEXT://127.0.0.1:7"),
        ("log.dirs", "/d"),
        ("node.id", "1"),
        ("num.partitions", "4"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(identity.static_settings, expected.into());
}

#[test]
fn environment_variables_are_unambiguous() {
    let names = OPTIONS
        .iter()
        .map(|option| option.0)
        .chain(sources::setting_names());
    let variables: Vec<_> = names.map(sources::variable_of).collect();
    let unique: BTreeSet<_> = variables.iter().collect();
    assert_eq!(unique.len(), variables.len());
    assert!(
        variables
            .iter()
            .any(|variable| variable == "FOREBAY_AUTO_CREATE_TOPICS_ENABLE")
    );
}

#[test]
fn switches_are_flags_words_and_values() {
    let config = load(&["--listeners-per-core", "--cores", "1"], &[]).unwrap();
    assert!(config.listeners_per_core);
    assert_eq!(
        effective(&config, "listeners-per-core"),
        pair("true", "flag --listeners-per-core")
    );
    let config = load(&[], &[("FOREBAY_LISTENERS_PER_CORE", "true")]).unwrap();
    assert!(config.listeners_per_core);
    assert!(!load(&[], &[]).unwrap().listeners_per_core);
    let pins = |flags: &[&str], environment: &[(&str, &str)]| {
        let cpus = load(flags, environment).unwrap().shards.cpus;
        cpus.iter().all(Option::is_some)
    };
    let named = cores::allowed_cpus()[0];
    assert!(pins(&["--cores", &format!("{named}-{named}")], &[]));
    assert!(!pins(&["--cores", "1", "--no-pin"], &[]));
    assert!(
        pins(&["--cores", "1", "--no-pin", "--pin"], &[]),
        "the last one counts"
    );
    assert!(!pins(&["--cores", "1"], &[("FOREBAY_PIN", "false")]));
    assert!(pins(&["--pin"], &[("FOREBAY_PIN", "false")]));
    let why = load(&["--cores", "0-0", "--no-pin"], &[]).unwrap_err();
    assert!(
        why.contains("cores = 0-0 (flag --cores) names CPUs"),
        "{why}"
    );
}

#[test]
fn steering_needs_ports_and_ids_for_every_shard() {
    let with = |flags: &[&str]| {
        let flags = [&["--cores", "3", "--listeners-per-core"], flags].concat();
        load(&flags, &[])
    };
    assert!(with(&["--listen", "127.0.0.1:65533"]).is_ok());
    let why = with(&["--listen", "127.0.0.1:65534"]).unwrap_err();
    assert!(why.contains("3 ports from 65534 up"), "{why}");
    let why = with(&["--advertise", "b:65535"]).unwrap_err();
    assert!(why.contains("3 ports from 65535 up"), "{why}");
    let why = with(&["--node-id", "2147483646"]).unwrap_err();
    assert!(why.contains("3 node ids from 2147483646 up"), "{why}");
    let listeners = ["127.0.0.1:7", "127.0.0.1:9"].map(|text| text.parse().unwrap());
    let identity = with(&[]).unwrap().identity("c".to_owned(), &listeners);
    assert_eq!(identity.ports_per_shard, [7, 9]);
    assert_eq!(
        identity.static_settings["listeners"],
        "PLAINTEXT://127.0.0.1:7,PLAINTEXT://127.0.0.1:9"
    );
    let identity = load(&[], &[])
        .unwrap()
        .identity("c".to_owned(), &listeners[..1]);
    assert!(identity.ports_per_shard.is_empty());
}

#[test]
fn shards_without_a_cpu_each_never_spin() {
    let poll = |cores: &str| {
        let config = load(&["--cores", cores, "--poll-us", "50"], &[]).unwrap();
        (config.poll, config.poll_refused)
    };
    assert_eq!(poll("1"), (Duration::from_micros(50), false));
    assert_eq!(poll("1000"), (Duration::ZERO, true));
    let config = load(&["--cores", "1000"], &[]).unwrap();
    assert!(!config.poll_refused, "nobody asked for it");
}

#[test]
fn a_list_of_one_cpu_is_no_count() {
    let named = cores::allowed_cpus()[0];
    let config = load_file(&format!("cores: [{named}]\n")).unwrap();
    assert_eq!(config.shards.cpus, [Some(named)]);
    assert_eq!(config.shards.why, "CPUs as told");
}

#[test]
fn socket_buffers_have_kafkas_names() {
    let flags = ["--set", "socket.send.buffer.bytes=102400"];
    assert_eq!(
        load(&flags, &[]).unwrap().socket_buffers(),
        (None, Some(102_400))
    );
    assert_eq!(load(&[], &[]).unwrap().socket_buffers(), (None, None));
}

#[test]
fn memory_is_a_size_that_the_shards_can_work_with() {
    let config = load(&["--memory", "128MiB", "--cores", "2"], &[]).unwrap();
    assert_eq!(config.memory.request_bytes, 64 << 20);
    assert_eq!(
        effective(&config, "memory"),
        pair("128MiB", "flag --memory")
    );
    let queued = "queued.max.request.bytes=16777216";
    let config = load(
        &["--memory", "128MiB", "--cores", "2", "--set", queued],
        &[],
    )
    .unwrap();
    assert_eq!(config.memory.request_bytes, 16 << 20);
    assert!(load(&[], &[]).unwrap().memory.bytes >= 64 << 20);
    let refusals = [
        (
            &["--memory", "lots"][..],
            "memory = lots (flag --memory) must be a number of bytes, such as 512MiB or 4GiB.",
        ),
        (
            &["--memory", "15MiB", "--cores", "2"],
            "memory (flag --memory) is too little for 2 shards: give at least 16MiB, or start \
             fewer shards (--cores).",
        ),
        (
            &["--cores", "2", "--set", "queued.max.request.bytes=1"],
            "queued.max.request.bytes (flag --set) is too little for 2 shards: give at least \
             8388608, or start fewer shards (--cores).",
        ),
    ];
    for (flags, sentence) in refusals {
        assert_eq!(load(flags, &[]).unwrap_err(), sentence);
    }
}
