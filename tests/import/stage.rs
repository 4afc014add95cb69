//! The balancer with imported flags and HAProxy with the original, in front of the same servers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use xtask::privilege::find_program;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Which server: 1 for 10.0.0.11 of the file.
    pub server: usize,
    pub set_cookies: Vec<String>,
    /// Of the request, as the server saw it.
    pub cookies: String,
    pub forwarded_for: String,
}

/// `balancer` with these arguments.
pub fn balancer(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().expect("started")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Servers that say who they are and what they saw; gone on drop.
pub struct Origins {
    addresses: Vec<SocketAddr>,
    is_gone: Arc<AtomicBool>,
}

impl Origins {
    pub fn start(count: usize) -> Self {
        let is_gone = Arc::new(AtomicBool::new(false));
        let addresses = (1..=count).map(|number| serve(number, Arc::clone(&is_gone))).collect();
        Self { addresses, is_gone }
    }

    /// The file with their addresses in the place of 10.0.0.11:8080 and so on.
    fn place(&self, text: &str) -> String {
        let places = self.addresses.iter().enumerate();
        places.fold(text.to_owned(), |text, (index, address)| {
            text.replace(&format!("10.0.0.1{}:8080", index + 1), &address.to_string())
        })
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
        // Wakes the threads, which then close their listeners.
        self.addresses.iter().for_each(|address| drop(TcpStream::connect(address)));
    }
}

fn serve(number: usize, is_gone: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if is_gone.load(Ordering::SeqCst) {
                return;
            }
            thread::spawn(move || answer(&stream, number));
        }
    });
    address
}

/// Sets the cookies that the request's X-Set asks for, and tells what it saw.
fn answer(stream: &TcpStream, number: usize) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let all = |wanted: &str| -> Vec<String> {
        let fields = lines.iter().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.to_owned())
            .collect()
    };
    let set: String = all("x-set").iter().map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect();
    let (cookies, forwarded) = (all("cookie").join(", "), all("x-forwarded-for").join(", "));
    let mut writer = stream;
    let _ = write!(
        writer,
        "HTTP/1.1 200 OK\r\n{set}X-Server: {number}\r\nX-Cookies: {cookies}\r\nX-For: {forwarded}\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    Some(())
}

/// A program in front of them; gone on drop.
pub struct Front {
    pub address: SocketAddr,
    child: Child,
    /// Of a balancer, whose servers may be on record in the kernel.
    name: Option<String>,
    folder: TempDir,
}

impl Front {
    /// What HAProxy's socket says.
    pub fn show_table(&self, table: &str) -> String {
        let mut socket =
            UnixStream::connect(self.folder.path().join("haproxy.sock")).expect("HAProxy's socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        writeln!(socket, "show table {table}").expect("asked");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// `balancer` with these words and `input`, about this one.
    pub fn tell(&self, words: &[&str], input: &str) -> Output {
        let path = self.folder.path().join("input");
        std::fs::write(&path, input).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.args(words).args(["--admin", "admin.sock"]).current_dir(self.folder.path());
        command.stdin(File::open(&path).expect("input")).output().expect("started")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(name) = &self.name {
            let _ = Command::new(env!("CARGO_BIN_EXE_balancer")).args(["detach", "--name", name]).output();
        }
    }
}

/// The configuration as both get it.
pub struct Original {
    text: String,
    pub name: &'static str,
}

impl Original {
    pub fn read(name: &'static str, origins: &Origins) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/import").join(name);
        Self { text: origins.place(&std::fs::read_to_string(path).expect(name)), name }
    }

    /// HAProxy with it. `None`: it is not installed, which CI does not forgive.
    pub fn haproxy(&self) -> Option<Front> {
        let program = find_program("haproxy");
        assert!(program.is_some() || std::env::var_os("CI").is_none(), "haproxy is missing");
        let program = program?;
        let folder = TempDir::new().expect("folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        // It inherits the socket, so that no port has to be guessed.
        fcntl(listener.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("option");
        let mut is_bound = false;
        let lines = self.text.lines().filter_map(|line| {
            if !line.trim_start().starts_with("bind ") {
                return Some(line.to_owned());
            }
            let first = !std::mem::replace(&mut is_bound, true);
            first.then(|| format!("    bind fd@{}", listener.as_raw_fd()))
        });
        let socket = folder.path().join("haproxy.sock").display().to_string();
        let text = format!(
            "global\n    stats socket {socket} level admin\n{}\n",
            lines.collect::<Vec<_>>().join("\n")
        );
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, text).expect("written");
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&path);
        let check =
            Command::new(command.get_program()).args(["-c", "-f"]).arg(&path).output().expect("started");
        assert!(check.status.success(), "{}: HAProxy refuses it: {}", self.name, text_of(&check));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let address = listener.local_addr().expect("address");
        Some(Front { address, child: child.expect("started"), name: None, folder })
    }

    /// Imported, checked and run.
    pub fn balancer(&self, arguments: &[&str], exit: i32) -> Front {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = TempDir::new().expect("folder");
        std::fs::write(folder.path().join(self.name), &self.text).expect("written");
        let import = [&["import", self.name, "--listen", "127.0.0.1:0"], arguments].concat();
        let output = balancer(&import, folder.path());
        assert_eq!(output.status.code(), Some(exit), "{}: {}", self.name, text_of(&output));
        let check = |file: &str| {
            let output = balancer(&["check", &format!("@{file}")], folder.path());
            assert!(output.status.success(), "{}: {}", self.name, text_of(&output));
        };
        std::fs::write(folder.path().join("first"), &output.stdout).expect("written");
        check("first");
        // Under a name of this test's, as there may be a service of that name on the machine.
        let name = format!("import-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let flags = text(&output.stdout);
        let lines = flags
            .lines()
            .map(|line| if line.starts_with("--name ") { format!("--name {name}") } else { line.to_owned() });
        std::fs::write(folder.path().join("flags"), lines.collect::<Vec<_>>().join("\n")).expect("written");
        check("flags");
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.args(["run", "@flags", "--admin", "admin.sock"]).current_dir(folder.path());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let ready = log.find(|line| line.contains("ready: ")).expect("the balancer starts");
        let address = ready.split_whitespace().find_map(|word| word.parse().ok()).expect("an address");
        // Somebody has to go on reading, or a talkative process would stop.
        thread::spawn(move || log.for_each(drop));
        Front { address, child, name: Some(name), folder }
    }
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Sends a request of an own connection: `line` is method and target.
pub fn ask(front: SocketAddr, from: &str, line: &str, headers: &[&str]) -> Answer {
    let source: SocketAddr = format!("{from}:0").parse().expect("address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&source.into()).expect("bind");
    socket.connect_timeout(&front.into(), PATIENCE).expect("connect");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("option");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in answer.lines().filter_map(|line| line.split_once(':')) {
        fields.entry(name.to_lowercase()).or_default().push(value.trim().to_owned());
    }
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let server = take("x-server").first().and_then(|number| number.parse().ok());
    Answer {
        server: server.unwrap_or_else(|| panic!("no server has answered {line}: {answer}")),
        set_cookies: take("set-cookie"),
        cookies: take("x-cookies").concat(),
        forwarded_for: take("x-for").concat(),
    }
}
