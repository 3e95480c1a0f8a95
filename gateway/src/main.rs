//! The recgate command.

/// Gives memory back after crowds of sessions and password checks, also when nothing happens after them; the C library's
/// allocator keeps it. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    recgate::cli::main(std::env::args_os())
}
