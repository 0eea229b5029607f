//! A real proxy under test, ours or Envoy, run from a configuration file and asked through its admin pages. Listeners
//! bind port 0; where they listen is read from the pages.

use super::{Client, Process, Request, Response, wait_for};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Corelane,
    Envoy,
}

pub struct Proxy {
    pub admin: SocketAddr,
    pub process: Process,
}

impl Proxy {
    /// Starts the sidecar on the driver under test and waits until it is ready.
    pub fn start(folder: &Path, name: &str, config: &str) -> Proxy {
        Proxy::start_kind(Kind::Corelane, folder, name, config)
    }

    pub fn start_kind(kind: Kind, folder: &Path, name: &str, config: &str) -> Proxy {
        let mut command = match kind {
            Kind::Corelane => sidecar(),
            Kind::Envoy => envoy(),
        };
        command.args(["--concurrency", "2"]);
        Proxy::run(command, folder, name, config)
    }

    /// With the configuration and the admin address still to be added to the command line.
    pub fn run(mut command: Command, folder: &Path, name: &str, config: &str) -> Proxy {
        let (path, admin) = (folder.join(format!("{name}.yaml")), folder.join(format!("{name}.admin")));
        fs::write(&path, config).expect("a writable folder");
        let _ = fs::remove_file(&admin);
        command.arg("-c").arg(&path).arg("--admin-address-path").arg(&admin);
        let mut process = Process::start(&mut command, &folder.join(format!("{name}.log")));
        let address = wait_for(&format!("{name}'s admin address"), || {
            if let Some(status) = process.exited() {
                panic!("{name} ended at start: {status}");
            }
            let text = fs::read_to_string(&admin).map_err(|error| error.to_string())?;
            text.trim().parse::<SocketAddr>().map_err(|_| format!("{text:?}"))
        });
        let proxy = Proxy { admin: address, process };
        wait_for(&format!("{name} to be ready"), || match proxy.try_get("/ready") {
            Ok(ready) if ready.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        proxy
    }

    fn try_get(&self, path: &str) -> std::io::Result<Response> {
        admin_call(self.admin, Request::get(path))
    }

    /// An admin page that must be there.
    pub fn page(&self, path: &str) -> String {
        let page = self.try_get(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        page.text().to_owned()
    }

    pub fn post(&self, path: &str) -> Response {
        let request = Request { body: Some(Vec::new()), ..Request::new("POST", path) };
        admin_call(self.admin, request).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Where the listener of that name is bound.
    pub fn listener(&self, name: &str) -> SocketAddr {
        wait_for(&format!("listener {name}"), || {
            let page = self.page("/listeners");
            let line =
                page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::").map(str::to_owned));
            line.and_then(|address| address.parse().ok())
                .filter(|address: &SocketAddr| address.port() != 0)
                .ok_or(page)
        })
    }

    /// A counter or gauge of `/stats`; 0 while it is not listed.
    pub fn stat(&self, name: &str) -> u64 {
        let page = self.page(&format!("/stats?filter=^{name}$"));
        let value =
            page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
        value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
    }

    /// Listeners' statistics carry the address, so they are found by their end; all listeners together.
    pub fn listeners_stat(&self, name: &str) -> u64 {
        let page = self.page(&format!("/stats?filter=^listener.[^a].*{name}$"));
        let own = page.lines().filter(|line| !line.contains(".worker_"));
        own.filter_map(|line| line.rsplit(": ").next()?.parse::<u64>().ok()).sum()
    }

    pub fn wait_stat(&self, name: &str, expected: u64) {
        wait_for(&format!("{name} = {expected}"), || match self.stat(name) {
            value if value == expected => Ok(()),
            value => Err(value),
        });
    }

    /// A line of `/clusters` about one endpoint.
    pub fn endpoint(&self, cluster: &str, address: SocketAddr, what: &str) -> String {
        let page = self.page("/clusters");
        let start = format!("{cluster}::{address}::{what}::");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("/clusters has no {start}\n{page}")).to_owned()
    }

    pub fn terminate_and_wait(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait()
    }
}

fn admin_call(address: SocketAddr, request: Request) -> std::io::Result<Response> {
    let mut client = Client::try_connect(address)?;
    client.try_call(&request.field("connection", "close"))
}

/// The sidecar of this build on the driver that the run asks for.
pub fn sidecar() -> Command {
    sidecar_at(&sidecar_binary())
}

/// A copy of it, for a user who may not look into the build's folder.
pub fn sidecar_copied_to(folder: &Path) -> Command {
    let copy = folder.join("corelane-sidecar");
    fs::copy(sidecar_binary(), &copy).expect("room for a copy");
    sidecar_at(&copy)
}

fn sidecar_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    if let Ok(driver) = env::var("CORELANE_TEST_DRIVER") {
        command.args(["--driver", &driver]);
    }
    command
}

/// Beside this executable: in `target/<profile>/`, from `deps/` or `examples/` below it.
fn sidecar_binary() -> PathBuf {
    let own = env::current_exe().expect("an executable");
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("corelane-sidecar")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no corelane-sidecar beside {}: build it first", own.display()))
}

fn envoy() -> Command {
    let mut command = Command::new(envoy_binary());
    command.args(["--use-dynamic-base-id", "-l", "warning"]);
    command
}

/// `$ENVOY_BIN`, else the one that `make setup` installed.
pub fn envoy_binary() -> PathBuf {
    if let Some(path) = env::var_os("ENVOY_BIN") {
        return path.into();
    }
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/venv/lib");
    let pythons = fs::read_dir(&library).into_iter().flatten().flatten();
    let found = pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file());
    found
        .unwrap_or_else(|| panic!("no Envoy below {}: run `make setup`, or set ENVOY_BIN", library.display()))
}
