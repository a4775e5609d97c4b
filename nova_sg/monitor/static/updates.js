// Server-sent events by fetch(): unlike EventSource it can bring a token.

const SILENCE = 40000;

export class Unauthorized extends Error {}

export function headers() {
  const token = sessionStorage.getItem("nova-sg-token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export async function get(path) {
  const answer = await fetch(path, { headers: headers() });
  if (answer.status === 401) throw new Unauthorized();
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  return body;
}

// Calls heard(kind, data) for each event until the connection ends; throws
// when it does.
export async function listen(path, heard, opened) {
  const control = new AbortController();
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => control.abort(), SILENCE);
  };
  wait();
  try {
    const answer = await fetch(path, { headers: headers(), signal: control.signal });
    if (answer.status === 401) throw new Unauthorized();
    if (!answer.ok) throw new Error(`the monitor answers ${answer.status}`);
    opened();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let parts = [];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the monitor ended the connection");
      wait();
      parts.push(value);
      if (!value.includes("\n")) continue;
      const blocks = parts.join("").split("\n\n");
      parts = [blocks.pop()];
      for (const block of blocks) {
        const event = /^event: (.*)\ndata: (.*)$/.exec(block);
        if (event) heard(event[1], JSON.parse(event[2]));
      }
    }
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}
