//! The recgate command.

fn main() -> std::process::ExitCode {
    recgate::cli::main(std::env::args_os())
}
