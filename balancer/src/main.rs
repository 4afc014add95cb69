//! The program: words → command → what it does. See the library for everything else.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use balancer::cli::{self, Command, Stop};
use balancer::config::{Host, Plan, Subject};
use balancer::{admin, check, datapath, doctor, import, log, run, top};

/// Requests are parsed into many small short-lived pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()).and_then(perform) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}

fn perform(command: Command) -> Result<(), Stop> {
    let host = Host::read();
    match command {
        Command::Print(text) => print(&text)?,
        Command::Reload(args, settings) => {
            print(&run::succession::start(&Plan::new(&args, settings, &host)?)?)?;
        }
        Command::Run(args, settings) => run::run(Plan::new(&args, settings, &host)?)?,
        Command::Check(args, settings, dump) => {
            let plan = Plan::new(&args, settings, &host)?;
            print(&check::report(&plan, dump)?)?;
        }
        Command::Doctor(args, settings, examination) => {
            let subject = Subject::new(&args, &settings, &examination.interface, &host)?;
            let report = doctor::examine(&subject, examination.probe);
            print(&if examination.json { report.json() } else { report.table() })?;
            report.verdict()?;
        }
        Command::Ask(client, line) => {
            let admin = host.admin_path(&client.name, client.admin.as_deref())?;
            print(&admin::client::ask(&client.name, &admin, &line)?)?;
        }
        Command::AskAndWait(client, line, wait) => {
            let admin = host.admin_path(&client.name, client.admin.as_deref())?;
            print(&admin::client::ask(&client.name, &admin, &line)?)?;
            print(&admin::client::wait(&client.name, &admin, &wait)?)?;
        }
        Command::Load(args) => {
            let admin = host.admin_path(&args.client.name, args.client.admin.as_deref())?;
            let (text, left) = admin::load::load(&args, &admin)?;
            print(&text)?;
            if let Some(left) = left {
                return Err(Stop::Incomplete(left));
            }
        }
        Command::Top(args) => {
            let admin = host.admin_path(&args.client.name, args.client.admin.as_deref())?;
            let text = top::run(&args, &top::ask::Instance { name: args.client.name.clone(), admin })?;
            if !text.is_empty() {
                print(&text)?;
            }
        }
        Command::Detach(None, force) => print(&datapath::detach_all(force)?)?,
        Command::Detach(Some(client), force) => {
            // For the name: whether an instance is alive is known to the kernel side.
            host.admin_path(&client.name, client.admin.as_deref())?;
            print(&datapath::detach(&client.name, force)?)?;
        }
        Command::Import(args) => {
            let imported = import::import(&args)?;
            print(&imported.text)?;
            let _ = io::stderr().write_all(imported.list.as_bytes());
            if let Some(what) = imported.incomplete {
                return Err(Stop::Incomplete(what));
            }
        }
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Stop> {
    let mut stdout = io::stdout();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        // Whoever closed our output does not want to know more.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::Failed(format!("the output cannot be written: {}", log::reason(&error))))
        }
        _ => Ok(()),
    }
}
