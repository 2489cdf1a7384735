// Shows items and what streams into them. Whatever a model or a person wrote is set as text and never as HTML.

const NAMES = { user: "You", assistant: "Model", system: "System", developer: "Developer" };
const log = document.getElementById("log");

export function make(tag, kind, ...children) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  node.append(...children);
  return node;
}

function box(kind, title) {
  const node = make("section", `item ${kind}`, make("h2", "", title));
  log.append(node);
  return node;
}

function partText(part) {
  switch (part.type) {
    case "input_image": return "[an image]";
    case "input_file": return `[a file: ${part.filename || "without a name"}]`;
    default: return part.text ?? part.refusal ?? "";
  }
}

function addText(node, text) {
  const line = make("div", "text", text);
  node.append(line);
  return line;
}

// A whole item, as it is stored.
export function showItem(item) {
  switch (item.type) {
    case "message":
      for (const part of item.content) addText(box(item.role, NAMES[item.role] ?? item.role), partText(part));
      break;
    case "reasoning":
      openReasoning().append((item.content ?? item.summary).map(partText).join("\n"));
      break;
    case "function_call":
      addText(box("call", "Function call"), `${item.name}(${item.arguments})`);
      break;
    case "function_call_output":
      addText(box("call", "What the function gave"), typeof item.output === "string" ? item.output : item.output.map(partText).join("\n"));
      break;
    default:
      addText(box("call", item.type), "");
  }
  log.scrollTop = log.scrollHeight;
}

function openReasoning() {
  const text = make("div", "text");
  box("reasoning", "Thought").append(make("details", "", make("summary", "", "Show"), text));
  return text;
}

function open(item) {
  switch (item.type) {
    case "reasoning": return openReasoning();
    case "function_call": return addText(box("call", "Function call"), `${item.name} `);
    default: return addText(box("assistant", NAMES.assistant), "");
  }
}

// Follows one response: call `take` with each of its events.
export class Growing {
  constructor() {
    this.texts = new Map();
  }

  take(event) {
    const near = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    if (event.type === "response.output_item.added") this.texts.set(event.output_index, open(event.item));
    else if (event.type.endsWith(".delta")) this.texts.get(event.output_index)?.append(event.delta);
    if (near) log.scrollTop = log.scrollHeight;
  }
}

export function showUsage(response, seconds) {
  const usage = response.usage;
  if (!usage) return;
  const cached = usage.input_tokens_details.cached_tokens;
  const thought = usage.output_tokens_details.reasoning_tokens;
  const told = [
    `${usage.input_tokens} tokens in${cached ? ` (${cached} cached)` : ""}`,
    `${usage.output_tokens} out${thought ? ` (${thought} thought)` : ""}`,
    usage.estimated ? "estimated" : "",
    `${seconds.toFixed(1)} s`,
    response.model,
  ];
  log.append(make("p", "usage", told.filter(Boolean).join(", ")));
}

export function clear() {
  log.replaceChildren();
}

export function busy(is) {
  log.setAttribute("aria-busy", String(is));
}
