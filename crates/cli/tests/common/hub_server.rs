//! A server on loopback that answers as the Hub does, or misbehaves as it is told to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// The commit that every repository is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status instead of an answer.
    Status(u16),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The body is another of the same length.
    Garbled,
    /// The file is said to be, and is, so many bytes long.
    Short(usize),
    /// The whole file, whatever range was asked for.
    WithoutRange,
}

/// A request that was made.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
}

impl Request {
    /// The first byte of the range that was asked for.
    pub fn range_from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }

    /// Whether only one byte was asked for, to learn of a file.
    fn is_for_metadata(&self) -> bool {
        self.headers.get("range").is_some_and(|range| range == "bytes=0-0")
    }
}

#[derive(Default)]
struct State {
    /// Contents by `datasets/owner/name` or `owner/name`, and file.
    repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Old names of repositories.
    renamed: BTreeMap<String, String>,
    /// Faults by the end of the path, one for each download, in order.
    faults: HashMap<String, VecDeque<Fault>>,
    token: Option<String>,
    requests: Vec<Request>,
}

/// A Hub: one address for the Hub, another for the storage of large files.
#[derive(Clone)]
pub struct HubServer {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
    storage: SocketAddr,
}

impl HubServer {
    pub fn start() -> HubServer {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, storage) = (bind(), bind());
        let server =
            HubServer { state: Arc::default(), hub: hub.local_addr().unwrap(), storage: storage.local_addr().unwrap() };
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                for connection in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(connection, is_storage));
                }
            });
        }
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub fn put(&self, repository: &str, file: &str, content: impl Into<Vec<u8>>) {
        let mut state = self.state.lock().unwrap();
        state.repositories.entry(repository.into()).or_default().insert(file.into(), content.into());
    }

    pub fn rename(&self, old: &str, new: &str) {
        self.state.lock().unwrap().renamed.insert(old.into(), new.into());
    }

    /// What goes wrong with the next downloads of a file; with `/api/…` as the file, with those of a list of files.
    pub fn fail(&self, file: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.insert(file.into(), faults.into_iter().collect());
    }

    pub fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.into());
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn forget_requests(&self) {
        self.state.lock().unwrap().requests.clear();
    }

    /// Requests for a file's content.
    pub fn downloads(&self, file: &str) -> Vec<Request> {
        let is_download = |request: &Request| request.path.ends_with(file) && !request.is_for_metadata();
        self.requests().into_iter().filter(is_download).collect()
    }

    fn serve(&self, mut connection: TcpStream, is_storage: bool) {
        let Some(request) = read_request(&connection) else { return };
        let mut state = self.state.lock().unwrap();
        state.requests.push(Request {
            path: format!("{}{}", if is_storage { "storage:" } else { "" }, request.path),
            ..request.clone()
        });
        let answer = self.answer(&mut state, &request, is_storage);
        drop(state);
        // Who has hung up misses the answer.
        let _ = connection.write_all(&answer);
    }

    fn answer(&self, state: &mut State, request: &Request, is_storage: bool) -> Vec<u8> {
        let path = request.path.trim_start_matches('/');
        let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
        if !is_storage && wanted.is_some() && request.headers.get("authorization") != wanted.as_ref() {
            return status(401);
        }
        if let Some((old, new)) = state.renamed.iter().find(|(old, _)| is_of(path, old)) {
            return redirect(307, &format!("/{}", path.replacen(old.as_str(), new, 1)), "");
        }
        if let Some(repository) = path.strip_prefix("api/") {
            let fault = state.faults.get_mut("/api/").and_then(VecDeque::pop_front);
            let repository = repository.trim_start_matches("models/").trim_end_matches("/revision/main");
            return match (fault, state.repositories.get(repository)) {
                (Some(Fault::Status(code)), _) => status(code),
                (_, Some(files)) => listing(files),
                (_, None) => status(404),
            };
        }
        let Some((repository, rest)) = path.split_once("/resolve/") else { return status(404) };
        let Some((_, file)) = rest.split_once('/') else { return status(404) };
        let Some(content) = state.repositories.get(repository).and_then(|files| files.get(file)).cloned() else {
            return status(404);
        };
        let is_large = file.ends_with(".parquet") || file.ends_with(".safetensors");
        let headers = tags(&content, is_large);
        // Large files lie elsewhere, under a name of their own.
        if !is_storage && is_large {
            return redirect(302, &format!("http://{}/{path}", self.storage), &headers);
        }
        let faults = state.faults.get_mut(file);
        let short = faults.as_ref().and_then(|faults| match faults.front() {
            Some(Fault::Short(length)) => Some(*length),
            _ => None,
        });
        let content = &content[..short.unwrap_or(content.len())];
        if request.is_for_metadata() {
            return part(content, 0..1, &headers);
        }
        let from = request.range_from().unwrap_or_default();
        match faults.and_then(VecDeque::pop_front) {
            Some(Fault::Status(code)) => status(code),
            Some(Fault::WithoutRange) => whole(content, &headers),
            Some(Fault::Garbled) => part(&vec![b'?'; content.len()], from..content.len(), &headers),
            Some(Fault::Cut(bytes)) => {
                let mut answer = part(content, from..content.len(), &headers);
                answer.truncate(answer.len() - (content.len() - from) + bytes);
                answer
            }
            _ if from >= content.len() => status(416),
            Some(Fault::Short(_)) | None => part(content, from..content.len(), &headers),
        }
    }
}

fn is_of(path: &str, repository: &str) -> bool {
    let path = path.trim_start_matches("api/").trim_start_matches("models/");
    path.strip_prefix(repository).is_some_and(|rest| rest.starts_with('/'))
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { path, headers })
}

/// What the Hub says of a file: its commit, and a tag, which of large files is their SHA-256, of others git's hash.
fn tags(content: &[u8], is_large: bool) -> String {
    let sha: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let linked = if is_large { format!("x-linked-etag: \"{sha}\"\r\n") } else { String::new() };
    format!("x-repo-commit: {COMMIT}\r\n{linked}etag: \"{}\"\r\n", &sha[..40])
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let siblings: Vec<_> = files.keys().map(|file| serde_json::json!({"rfilename": file})).collect();
    let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
    whole(body.as_bytes(), "content-type: application/json\r\n")
}

fn answer(code: u16, length: usize, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut head = String::new();
    write!(head, "HTTP/1.1 {code} .\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n").unwrap();
    [head.as_bytes(), body].concat()
}

fn status(code: u16) -> Vec<u8> {
    answer(code, 0, "", b"")
}

fn redirect(code: u16, location: &str, headers: &str) -> Vec<u8> {
    answer(code, 0, &format!("location: {location}\r\n{headers}"), b"")
}

fn whole(content: &[u8], headers: &str) -> Vec<u8> {
    answer(200, content.len(), headers, content)
}

fn part(content: &[u8], range: std::ops::Range<usize>, headers: &str) -> Vec<u8> {
    let body = &content[range.clone()];
    let headers = format!("{headers}content-range: bytes {}-{}/{}\r\n", range.start, range.end - 1, content.len());
    answer(206, body.len(), &headers, body)
}
