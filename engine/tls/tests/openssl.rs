//! Our streams against OpenSSL, which shares no code with us at all. Needs the `openssl` command; without it these
//! tests are skipped, and the runner is told.
#![allow(clippy::unwrap_used)] // its helpers are part of its tests

mod peers;
#[path = "../../../sidecar/tests/support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use corelane_runtime::net::TcpStream;
use corelane_runtime::testing::on_both_drivers;
use corelane_tls::*;
use peers::*;

fn is_missing() -> bool {
    let missing = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err();
    if missing {
        skip::skip("openssl", "there is no openssl command here");
    }
    missing
}

/// A test that found nothing to talk to has not passed.
#[test]
fn without_openssl_every_test_of_it_tells_the_runner_that_it_was_skipped() {
    let folder = Folder::new("skips");
    let skips = folder.file("skips", "");
    let this = std::env::current_exe().unwrap();
    let status = Command::new(this)
        .args(["--test-threads=1", "as_client_of_s_server", "as_server_of_s_client"])
        .env("PATH", "/nowhere")
        .env("CORELANE_TEST_SKIPS", &skips)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let told = std::fs::read_to_string(skips).unwrap();
    assert_eq!(told, "openssl\tthere is no openssl command here\n".repeat(2));
}

/// Kills what is left of it.
struct OpenSsl(Child);

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Files for one process, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corelane-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that answers each line with the line reversed, and requires a client certificate.
fn reversing_server(folder: &Folder, authority: &Authority, arguments: &[&str]) -> (OpenSsl, SocketAddr) {
    let leaf = authority.issue(Leaf::uri(&PAYMENTS));
    let mut child = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-Verify", "2", "-verify_return_error"])
        .arg("-cert")
        .arg(folder.file("chain.pem", &leaf.chain))
        .arg("-key")
        .arg(folder.file("key.pem", &leaf.key))
        .arg("-CAfile")
        .arg(folder.file("bundle.pem", authority.pem()))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("s_server says where it listens").unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.trim().parse().unwrap();
        }
    };
    // keeps the pipe open and empty
    std::thread::spawn(move || lines.for_each(drop));
    (OpenSsl(child), address)
}

#[test]
fn as_client_of_s_server_with_resumption_and_key_updates() {
    if is_missing() {
        return;
    }
    let authority = Authority::new("root");
    let mut spec = ClientSpec::new("outbound");
    spec.certificate = Some(authority.issue(Leaf::uri(&ORDERS)));
    spec.validation = Some(authority.validation(&[PAYMENTS]));
    let context = client(&spec);
    let cases: [(&[&str], bool); 4] = [
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], true),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], false),
        (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], false),
        (&["-tls1_2"], false),
    ];
    for (case, (arguments, update_keys)) in cases.into_iter().enumerate() {
        let folder = Folder::new(&format!("s_server-{case}"));
        let (_server, address) = reversing_server(&folder, &authority, arguments);
        let context = context.clone();
        on_both_drivers(move |core| {
            let context = context.clone();
            async move {
                let tls = TlsCore::new(&core);
                for round in 0..2 {
                    let tcp = TcpStream::connect(&core, address, &Default::default()).await.unwrap();
                    let params = ConnectParams::default();
                    let stream = connect(&tls, tcp, &context, params, deadline(&core)).await.unwrap();
                    assert_eq!(stream.resumed(), round > 0);
                    assert_eq!(stream.is_in_place(), arguments[0] == "-tls1_3");
                    assert_eq!(stream.peer().unwrap().principal(), Some(PAYMENTS));
                    let line: Vec<u8> = pattern(8000).iter().map(|byte| b'a' + byte % 26).collect();
                    write_bytes(&core, &stream, &[&line[..], b"\n"].concat()).await;
                    let answer = read_len(&core, &stream, 8001).await;
                    assert!(answer[..8000].iter().rev().eq(line.iter()));
                    if update_keys && round == 0 {
                        stream.update_keys(true).await.unwrap();
                        write_bytes(&core, &stream, b"hello\n").await;
                        assert_eq!(read_len(&core, &stream, 6).await, b"olleh\n");
                        assert_eq!(stream.key_updates(), (1, 1));
                    }
                    stream.shutdown_write().await.unwrap();
                }
            }
        });
    }
}

#[test]
fn as_server_of_s_client_with_its_key_updates() {
    if is_missing() {
        return;
    }
    let authority = Authority::new("root");
    let mut spec = ServerSpec::new("inbound", authority.issue(Leaf::uri(&PAYMENTS)));
    spec.client_validation = Some(authority.validation(&[]));
    spec.alpn = vec![b"h2".to_vec()];
    let context = server(&spec);
    for version in ["-tls1_3", "-tls1_2"] {
        let context = context.clone();
        on_both_drivers(move |core| {
            let context = context.clone();
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap().to_string();
                let mut child = Command::new("openssl")
                    .args([
                        "s_client",
                        "-connect",
                        &address,
                        version,
                        "-alpn",
                        "h2",
                        "-servername",
                        "x.example",
                    ])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut input = child.stdin.take().unwrap();
                let mut output = child.stdout.take().unwrap();
                let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
                let _child = OpenSsl(child);
                let (socket, _) = listener.accept().unwrap();
                let tls = TlsCore::new(&core);
                let tcp = adopt(&core, socket);
                let stream = accept(&tls, tcp, &context, None, deadline(&core)).await.unwrap();
                assert_eq!((stream.alpn(), stream.sni()), (Some(&b"h2"[..]), Some("x.example")));
                input.write_all(b"first\n").unwrap();
                assert_eq!(read_len(&core, &stream, 6).await, b"first\n");
                if stream.is_in_place() {
                    // K asks us for an update, k does not; each must be a read of its own to be a command
                    for (command, expected) in [(b"K\n", (1, 1)), (b"k\n", (1, 2))] {
                        input.write_all(command).unwrap();
                        notes
                            .find(|note| note.as_deref().is_ok_and(|note| note.contains("KEYUPDATE")))
                            .unwrap()
                            .unwrap();
                        input.write_all(b"again\n").unwrap();
                        assert_eq!(read_len(&core, &stream, 6).await, b"again\n");
                        write_bytes(&core, &stream, b"answer\n").await;
                        assert_eq!(stream.key_updates(), expected);
                    }
                }
                write_bytes(&core, &stream, b"the end\n").await;
                stream.shutdown_write().await.unwrap();
                drop(input);
                assert_eq!(read_len(&core, &stream, 1).await, b"");
                let mut text = String::new();
                output.read_to_string(&mut text).unwrap();
                assert!(text.contains("the end"), "{text}");
            }
        });
    }
}
