//! The command line; everything is in the library's [`ankh::cli`].

fn main() -> std::process::ExitCode {
    ankh::cli::main()
}
