//! EDN's values, as far as histories have them, as JSON's: keywords and symbols become text, lists and sets arrays, tags
//! are left out.

use serde_json::{Map, Number, Value};

/// Deepest nesting that is read.
const DEPTH: usize = 64;

/// All values of a text, in order, each with the line it ends in. The error says where it cannot be read.
pub fn parse(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let mut reader = Reader { text, at: 0 };
    let mut values = Vec::new();
    let (mut line, mut counted) = (1, 0);
    while let Some(value) = reader.value(DEPTH)? {
        line += lines(&text[counted..reader.at]);
        counted = reader.at;
        values.push((line, value));
    }
    match reader.peek() {
        Some(_) => Err(reader.wrong("nothing is open that this closes")),
        None => Ok(values),
    }
}

/// Ends of lines.
fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", 1 + lines(&self.text[..self.at]))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            match next {
                ';' => while self.next().is_some_and(|next| next != '\n') {},
                ',' => drop(self.next()),
                _ if next.is_whitespace() => drop(self.next()),
                _ => return,
            }
        }
    }

    /// The next value; `None` at the end of the text, or of what is open.
    fn value(&mut self, depth: usize) -> Result<Option<Value>, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.wrong("nested too deep"));
        };
        self.skip();
        let Some(first) = self.peek() else { return Ok(None) };
        let value = match first {
            '}' | ']' | ')' => return Ok(None),
            '{' => self.map(depth)?,
            '[' => self.items(']', depth)?,
            '(' => self.items(')', depth)?,
            '"' => self.string()?,
            '#' => return self.tagged(depth),
            '\\' => {
                self.next();
                Value::from(self.word(true))
            }
            _ => self.atom()?,
        };
        Ok(Some(value))
    }

    fn tagged(&mut self, depth: usize) -> Result<Option<Value>, String> {
        self.next();
        match self.peek() {
            Some('{') => self.items('}', depth).map(Some),
            Some('_') => {
                self.next();
                self.value(depth)?;
                self.value(depth)
            }
            _ => {
                self.word(false);
                self.value(depth)
            }
        }
    }

    fn items(&mut self, end: char, depth: usize) -> Result<Value, String> {
        self.next();
        let mut items = Vec::new();
        while let Some(item) = self.value(depth)? {
            items.push(item);
        }
        self.close(end)?;
        Ok(Value::Array(items))
    }

    fn close(&mut self, end: char) -> Result<(), String> {
        match self.next() {
            Some(found) if found == end => Ok(()),
            Some(found) => Err(self.wrong(&format!("{found} stands where {end} should"))),
            None => Err(self.wrong(&format!("it ends before its {end}"))),
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        self.next();
        let mut fields = Map::new();
        loop {
            self.skip();
            let keyword = self.peek() == Some(':');
            let Some(key) = self.value(depth)? else { break };
            let key = match key {
                Value::String(name) if keyword => name.replace('-', "_"),
                Value::String(name) => name,
                other => other.to_string(),
            };
            let value = self.value(depth)?;
            let value = value.ok_or_else(|| self.wrong("a key without a value"))?;
            if fields.insert(key, value).is_some() {
                return Err(self.wrong("a key stands twice"));
            }
        }
        self.close('}')?;
        Ok(Value::Object(fields))
    }

    fn string(&mut self) -> Result<Value, String> {
        self.next();
        // As JSON has it, so that surrogates, which come in pairs, are its reader's.
        let mut json = String::from('"');
        loop {
            match self.next() {
                None => return Err(self.wrong("a text that does not end")),
                Some('"') => break,
                Some('\\') => {
                    json.push('\\');
                    json.extend(self.next());
                }
                Some(plain) if plain.is_control() => json.push_str(&format!("\\u{:04x}", plain as u32)),
                Some(plain) => json.push(plain),
            }
        }
        json.push('"');
        serde_json::from_str(&json).map_err(|error| self.wrong(&format!("a text with {error}")))
    }

    /// Up to what ends a word; `first`: at least one character, whatever it is.
    fn word(&mut self, first: bool) -> &str {
        let from = self.at;
        if first {
            self.next();
        }
        while let Some(next) = self.peek() {
            if next.is_whitespace() || ",;\"()[]{}".contains(next) {
                break;
            }
            self.next();
        }
        &self.text[from..self.at]
    }

    fn atom(&mut self) -> Result<Value, String> {
        let word = self.word(true).to_owned();
        let digits = word.strip_prefix(['-', '+']).unwrap_or(&word);
        if digits.starts_with(|first: char| first.is_ascii_digit()) {
            let number = number(&word);
            return number.ok_or_else(|| self.wrong(&format!("{word} is no number")));
        }
        Ok(match word.as_str() {
            "nil" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => Value::from(word.strip_prefix(':').unwrap_or(word)),
        })
    }
}

/// A number, exact or not.
fn number(word: &str) -> Option<Value> {
    let plain = word.strip_prefix('+').unwrap_or(word);
    let plain = plain.strip_suffix(['N', 'M']).unwrap_or(plain);
    let exact = plain.parse::<u64>().map(Number::from);
    let exact = exact.or_else(|_| plain.parse::<i64>().map(Number::from)).ok();
    let number = exact.or_else(|| plain.parse::<f64>().ok().and_then(Number::from_f64));
    number.map(Value::Number)
}
