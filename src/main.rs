//! Arguments to command; nothing else.

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or("info".into()))
        .init();
    let args: Vec<String> = std::env::args().collect();
    let config = forebay::config::Config {
        io: if args[4] == "posix" {
            forebay::io::backend::Choice::Posix
        } else {
            forebay::io::backend::Choice::Uring
        },
        listen: format!("127.0.0.1:{}", args[1]).parse().unwrap(),
        data_dir: args[2].clone().into(),
        node_id: 1,
        cores: (0..args[3].parse::<usize>().unwrap())
            .map(|_| None)
            .collect(),
        advertise: None,
        broker_settings: Default::default(),
    };
    let server = forebay::server::Server::start(&config).unwrap();
    println!("listening {}", server.address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    server.stop().unwrap();
}
