//! Arguments to command; nothing else.

use clap::Parser;
#[derive(Parser)]
struct A {
    #[command(flatten)]
    s: forebay::config::ServeArgs,
}
fn main() {
    let a = A::parse();
    if let Err(e) = forebay::cli::serve::run(&a.s, &mut std::io::stdout()) {
        eprintln!("forebay: {e}");
        std::process::exit(1);
    }
}
