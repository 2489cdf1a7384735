// The playground: choose a model, talk, see past conversations. All that it keeps is in this tab's sessionStorage.

import { call, follow } from "./talk.js";
import { Growing, busy, clear, make, showItem, showUsage } from "./show.js";

const ENDINGS = {
  max_output_tokens: "The answer reached its limit of tokens.",
  content_filter: "A content filter stopped the answer.",
  interrupted: "The process that answered has ended; this is what it had said.",
};
const RUNNING = ["queued", "in_progress"];
const PAGE = 50;
const LONGEST_TITLE = 60;
const at = (id) => document.getElementById(id);

let conversation = "";
let running = "";
// Counts what is shown: what belongs to an earlier view is dropped.
let view = 0;

const key = () => at("key").value.trim();
const tell = (text) => at("status").replaceChildren(text);

function complain(error) {
  at("trouble").replaceChildren(error?.words ?? error?.message ?? error ?? "");
  if (error?.status === 401) at("key").focus();
}

function setRunning(response) {
  running = response;
  at("cancel").disabled = !running;
  if (running) sessionStorage.setItem("running", JSON.stringify({ response, conversation }));
  else sessionStorage.removeItem("running");
}

function select(id) {
  conversation = id;
  at("delete").disabled = !id;
  for (const button of at("conversations").querySelectorAll("button")) {
    if (button.value === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

function listOne(one, place) {
  const button = make("button", "", one.metadata?.title || new Date(one.created_at * 1000).toLocaleString());
  button.type = "button";
  button.value = one.id;
  button.addEventListener("click", () => show(one.id));
  at("conversations")[place](make("li", "", button));
}

async function listConversations(after = "") {
  try {
    const page = await call(key(), "GET", `v1/conversations?limit=${PAGE}${after && `&after=${after}`}`);
    if (!after) at("conversations").replaceChildren();
    for (const one of page.data) listOne(one, "append");
    at("more").hidden = !page.has_more;
    at("more").value = page.last_id ?? "";
    select(conversation);
  } catch (error) {
    complain(error);
  }
}

async function listModels() {
  try {
    const models = (await call(key(), "GET", "v1/models")).data.map((model) => new Option(model.id, model.id));
    at("model").replaceChildren(new Option("the service's own", ""), ...models);
    at("model").value = sessionStorage.getItem("model") ?? "";
    if (at("model").selectedIndex < 0) at("model").value = "";
    complain("");
  } catch (error) {
    complain(error);
  }
}

async function show(id) {
  begin(id);
  const mine = view;
  try {
    for (let after = "", more = true; more; ) {
      const page = await call(key(), "GET", `v1/conversations/${id}/items?order=asc&limit=100${after && `&after=${after}`}`);
      if (mine !== view) return;
      page.data.forEach(showItem);
      [after, more] = [page.last_id ?? "", page.has_more];
    }
  } catch (error) {
    if (mine === view) complain(error);
  }
}

function conclude(response, seconds) {
  showUsage(response, seconds);
  if (response.status === "failed") complain(`${response.error.message} (${response.error.code})`);
  else if (response.status === "cancelled") tell("Cancelled.");
  else tell(ENDINGS[response.incomplete_details?.reason] ?? "");
}

// Show a response while it comes: a new one, or one that was running when the page was left.
async function relay(what) {
  const mine = view;
  const began = performance.now();
  const growing = new Growing();
  busy(true);
  at("send").disabled = true;
  try {
    const onCut = (tries) => tell(`The connection broke; trying to go on (${tries}) …`);
    for await (const event of follow(key(), { ...what, onCut })) {
      if (mine !== view) return;
      if (event.type === "response.created") setRunning(event.response.id);
      tell("The model answers …");
      growing.take(event);
      if (event.response && !RUNNING.includes(event.response.status)) {
        conclude(event.response, (performance.now() - began) / 1000);
      }
    }
  } catch (error) {
    if (mine !== view) return;
    tell("");
    complain(error);
  } finally {
    if (mine === view) {
      setRunning("");
      busy(false);
      at("send").disabled = false;
      at("text").focus();
    }
  }
}

async function ask(text) {
  complain("");
  tell("Asking …");
  if (!conversation) {
    const metadata = { title: Array.from(text).slice(0, LONGEST_TITLE).join("") };
    const made = await call(key(), "POST", "v1/conversations", { metadata });
    listOne(made, "prepend");
    select(made.id);
  }
  showItem({ type: "message", role: "user", content: [{ type: "input_text", text }] });
  const model = at("model").value;
  await relay({ body: { input: text, conversation, stream: true, ...(model && { model }) } });
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value;
  if (!text.trim() || at("send").disabled) return;
  at("text").value = "";
  try {
    await ask(text);
  } catch (error) {
    at("text").value = text;
    tell("");
    complain(error);
  }
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => event.key === "Escape" && at("cancel").click());
at("cancel").addEventListener("click", () => {
  at("cancel").disabled = true;
  tell("Cancelling …");
  call(key(), "POST", `v1/responses/${running}/cancel`).catch(complain);
});
at("new").addEventListener("click", () => begin());
at("more").addEventListener("click", () => listConversations(at("more").value));
at("delete").addEventListener("click", async () => {
  if (!confirm("Delete this conversation with all its messages?")) return;
  try {
    await call(key(), "DELETE", `v1/conversations/${conversation}`);
    begin();
    await listConversations();
  } catch (error) {
    complain(error);
  }
});
at("model").addEventListener("change", () => sessionStorage.setItem("model", at("model").value));
at("key").addEventListener("change", () => {
  sessionStorage.setItem("key", key());
  start();
});

// An empty view, of a conversation that there is or of one that the first message begins.
function begin(id = "") {
  view++;
  setRunning("");
  busy(false);
  at("send").disabled = false;
  clear();
  complain("");
  tell("");
  select(id);
  at("text").focus();
}

async function start() {
  const left = JSON.parse(sessionStorage.getItem("running") ?? "null");
  begin();
  await listModels();
  await listConversations();
  if (left) await goOn(left);
}

// What was running when the page was left; its question is in the conversation only once its turn has ended.
async function goOn({ response, conversation: where }) {
  await show(where);
  const mine = view;
  try {
    const known = await call(key(), "GET", `v1/responses/${response}`);
    const question = await call(key(), "GET", `v1/responses/${response}/input_items?order=asc`);
    if (mine !== view || !RUNNING.includes(known.status)) return;
    question.data.forEach(showItem);
    await relay({ response });
  } catch (error) {
    complain(error);
  }
}

at("key").value = sessionStorage.getItem("key") ?? "";
start();
