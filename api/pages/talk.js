// Speaks to the service: calls, and streams that go on after they were cut.

const TERMINAL = ["response.completed", "response.incomplete", "response.failed"];
const PAUSES_MS = [300, 1000, 2000, 4000, 8000, 8000];

// What went wrong, in the service's words; `status` is 0 when it could not be reached.
export class Trouble extends Error {
  constructor(status, error, requestId) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.param = error.param;
    this.requestId = requestId;
  }

  get words() {
    const where = [this.code, this.param && `in ${this.param}`, this.requestId].filter(Boolean).join(", ");
    return where ? `${this.message} (${where})` : this.message;
  }
}

async function request(key, method, path, body, headers = {}) {
  const options = { method, headers: { ...headers }, cache: "no-store" };
  if (key) options.headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Trouble(0, { message: "The service can't be reached." });
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const error = told?.error ?? { message: `Something in between answered with HTTP ${answer.status}.` };
  throw new Trouble(answer.status, error, answer.headers.get("x-request-id"));
}

export async function call(key, method, path, body) {
  return (await request(key, method, path, body)).json();
}

// The events of one connection, until it ends or is cut.
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const line = frame.split("\n").find((one) => one.startsWith("data: {"));
        if (line) yield JSON.parse(line.slice(6));
      }
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const passes = (trouble) => trouble.status === 0 || trouble.status === 502 || trouble.status === 503;

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Every event of a response once, in order, however often the connection is cut. `body` begins a new one, which its
// Idempotency-Key keeps single; without a body, `response` is one that may still run. `onCut` is told of each try.
export async function* follow(key, { body, response, onCut }) {
  const headers = { "Idempotency-Key": newKey() };
  let last = -1;
  for (let tries = 0; ; ) {
    try {
      const resume = `v1/responses/${response}?stream=true${last < 0 ? "" : `&starting_after=${last}`}`;
      const answer = await (response ? request(key, "GET", resume) : request(key, "POST", "v1/responses", body, headers));
      for await (const event of eventsOf(answer)) {
        response ??= event.response?.id;
        last = event.sequence_number;
        tries = 0;
        yield event;
        if (TERMINAL.includes(event.type)) return;
      }
    } catch (error) {
      if (!(error instanceof Trouble) || !passes(error) || tries >= PAUSES_MS.length) throw error;
    }
    if (tries >= PAUSES_MS.length) throw new Trouble(0, { message: "The stream was cut and could not be resumed." });
    onCut(tries + 1);
    await pause(PAUSES_MS[tries++]);
  }
}
