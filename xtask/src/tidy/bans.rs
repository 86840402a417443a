//! Calls and crates that are not used in some place: nondeterminism in the pure core, openraft outside `raft`,
//! unfinished code, skipped tests, tests that sleep for luck.

use super::finding::Finding;
use super::source::{Source, Token};

/// The crates that decide and never perform.
const PURE: &[&str] = &["machine", "planner", "checker"];

/// What the pure crates never name outside their tests, each with what to do.
const IMPURE: &[(&str, &str)] = &[
    ("SystemTime", "take the time as an argument (`Stamp`)"),
    ("Instant", "take the time as an argument (`Stamp`)"),
    ("HashMap", "use BTreeMap: its order is the same on every replica"),
    ("HashSet", "use BTreeSet: its order is the same on every replica"),
    ("RandomState", "use a fixed hash (xxhash)"),
    ("rand", "take the random value as an argument of the command"),
    ("tokio", "return an effect; the shell performs it"),
    ("async", "be synchronous; return an effect"),
    ("await", "be synchronous; return an effect"),
    ("tracing", "return what is to be said; the shell logs"),
    ("println", "return what is to be said; the shell prints"),
    ("eprintln", "return what is to be said; the shell prints"),
    ("fs", "read through `View`"),
    ("net", "return an effect; the shell performs it"),
    ("thread", "be single-threaded; the shell decides where it runs"),
    ("Mutex", "own the state; the shell locks"),
    ("RwLock", "own the state; the shell locks"),
];

/// A crate that one crate alone names: (crate in the source, its owner, what to do).
const OWNED: &[(&str, &str, &str)] = &[
    ("openraft", "raft", "use what crate `raft` offers"),
    ("rocksdb", "storage", "use the traits of crate `storage`"),
];

/// Sockets, which only the seam opens in production code.
const SOCKETS: &[&str] = &[
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
];

/// The crates that may open sockets themselves: the seam, its twin in the simulation, and what is never simulated.
const OPEN_SOCKETS: &[&str] = &["env", "sim", "cli", "tests", "jepsen", "bench", "xtask"];

/// Checks one file.
pub fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tokens = &source.tokens;
    for (at, (token, line)) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let previous = at.checked_sub(1).map(|i| &tokens[i].0);
        let next = tokens.get(at + 1).map(|(token, _)| token);
        let finding = impure(source, word, *line, previous)
            .or_else(|| owned(source, word, *line, next))
            .or_else(|| socket(source, word, *line))
            .or_else(|| unfinished(source, word, *line, next))
            .or_else(|| ignored(source, word, *line, at));
        findings.extend(finding);
    }
    findings.extend(sleeping_tests(source));
    findings
}

fn impure(source: &Source<'_>, word: &str, line: usize, previous: Option<&Token>) -> Option<Finding> {
    if !PURE.contains(&source.crate_name()) || source.in_tests(line) {
        return None;
    }
    // `self.net` and `value.fs` are fields of ours, not modules.
    if previous == Some(&Token::Mark('.')) && word != "await" {
        return None;
    }
    let (_, instead) = IMPURE.iter().find(|(banned, _)| *banned == word)?;
    Some(Finding::new(
        source.path,
        line,
        format!("`{word}` in a pure crate"),
        *instead,
    ))
}

fn owned(source: &Source<'_>, word: &str, line: usize, next: Option<&Token>) -> Option<Finding> {
    let (name, owner, instead) = OWNED
        .iter()
        .find(|(name, owner, _)| *name == word && source.crate_name() != *owner)?;
    // A name followed by `::`, `;` or `as` is the crate; a variable of that name is harmless.
    let is_path =
        matches!(next, Some(Token::Mark(':' | ';'))) || next == Some(&Token::Word("as".to_string()));
    is_path.then(|| {
        Finding::new(
            source.path,
            line,
            format!("`{name}` outside crate `{owner}`"),
            *instead,
        )
    })
}

fn socket(source: &Source<'_>, word: &str, line: usize) -> Option<Finding> {
    let free = OPEN_SOCKETS.contains(&source.crate_name()) || source.in_tests(line);
    let instead = "connect and listen through `env::Net`, so that the simulator can cut it";
    (!free && SOCKETS.contains(&word))
        .then(|| Finding::new(source.path, line, format!("`{word}` outside the seam"), instead))
}

fn unfinished(source: &Source<'_>, word: &str, line: usize, next: Option<&Token>) -> Option<Finding> {
    let instead = match word {
        "todo" | "unimplemented" => "write it, or return an error that says so",
        "dbg" => "use tracing, or delete it",
        _ => return None,
    };
    (next == Some(&Token::Mark('!'))).then(|| Finding::new(source.path, line, format!("`{word}!`"), instead))
}

fn ignored(source: &Source<'_>, word: &str, line: usize, at: usize) -> Option<Finding> {
    let mark = |index: Option<usize>| match index.and_then(|index| source.tokens.get(index)) {
        Some((Token::Mark(mark), _)) => *mark,
        _ => ' ',
    };
    let opens = mark(at.checked_sub(2)) == '#' && mark(at.checked_sub(1)) == '[';
    (word == "ignore" && opens).then(|| {
        Finding::new(
            source.path,
            line,
            "`#[ignore]`: a test nobody runs",
            "make it run, or delete it",
        )
    })
}

/// In tests, `sleep` stands only in a loop that asks for a condition and has a deadline: a function that says
/// `loop` or `while` before it sleeps, and one of these words anywhere.
const DEADLINE_WORDS: &[&str] = &[
    "deadline", "limit", "elapsed", "timeout", "end", "ends", "until", "patience",
];

fn sleeping_tests(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let starts = source
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, (token, _))| *token == Token::Word("fn".to_string()));
    let mut starts: Vec<usize> = starts.map(|(index, _)| index).collect();
    starts.push(source.tokens.len());
    for function in starts.windows(2) {
        findings.extend(sleeping_function(
            source,
            &source.tokens[function[0]..function[1]],
        ));
    }
    findings
}

fn sleeping_function(source: &Source<'_>, tokens: &[(Token, usize)]) -> Vec<Finding> {
    let says = |words: &[&str]| {
        tokens
            .iter()
            .any(|(token, _)| matches!(token, Token::Word(word) if words.contains(&word.as_str())))
    };
    let bounded = says(DEADLINE_WORDS);
    let mut looping = false;
    let mut findings = Vec::new();
    for pair in tokens.windows(2) {
        let (Token::Word(word), line) = &pair[0] else {
            continue;
        };
        looping |= matches!(word.as_str(), "loop" | "while");
        let sleeps =
            matches!(word.as_str(), "sleep" | "sleep_until" | "usleep") && pair[1].0 == Token::Mark('(');
        if sleeps && source.in_tests(*line) && !(looping && bounded) {
            let instead = "poll the condition in a loop that has a deadline";
            findings.push(Finding::new(
                source.path,
                *line,
                format!("`{word}` in test code, for luck"),
                instead,
            ));
        }
    }
    findings
}
