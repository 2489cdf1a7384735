// Renders openapi.json, which comes from the same service, for reading. Everything is set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "delete"];
const LIMITS = ["const", "default", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties"];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const code = (text) => make("code", {}, text);

const inline = (line) => line.split("`").map((part, index) => (index % 2 ? code(part) : part));

// Paragraphs, lists of "- " lines, and `code`: what our descriptions use of Markdown.
function prose(text) {
  return (text || "").split("\n\n").filter(Boolean).map((block) => {
    if (!block.startsWith("- ")) return make("p", {}, inline(block));
    return make("ul", {}, block.split("\n").map((line) => make("li", {}, inline(line.slice(2)))));
  });
}

const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);
const link = (name) => make("a", { href: `#schema-${name}` }, name);

function joined(nodes, separator) {
  return nodes.flatMap((node, index) => (index ? [separator, node] : [node]));
}

// A schema in one line; what is an object of its own is told below, or linked to.
function brief(schema) {
  if (schema.$ref) return link(nameOf(schema.$ref));
  if (schema.contentSchema) return make("span", {}, "JSON: ", brief(schema.contentSchema));
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return make("span", {}, joined(choices.map(brief), " or "));
  if (schema.enum) return make("span", {}, joined(schema.enum.map((value) => code(JSON.stringify(value))), " or "));
  if (schema.const !== undefined) return code(JSON.stringify(schema.const));
  if (schema.type === "array") return make("span", {}, "list of ", brief(schema.items || {}));
  if (schema.properties) {
    const members = Object.entries(schema.properties).map(([name, one]) => make("span", {}, code(name), ": ", brief(one)));
    return make("span", {}, "object with ", joined(members, ", "));
  }
  return document.createTextNode(schema.type || "anything");
}

function limits(schema) {
  const told = LIMITS.filter((name) => schema[name] !== undefined && !(name === "const"));
  const found = told.map((name) => `${name} ${JSON.stringify(schema[name])}`);
  for (const member of schema.anyOf || []) found.push(...limits(member));
  return found;
}

function row(cells) {
  return make("tr", {}, cells.map((cell) => make("td", {}, cell)));
}

function table(titles, rows) {
  const head = make("tr", {}, titles.map((title) => make("th", { scope: "col" }, title)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, rows));
}

function fields(schema) {
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties).map(([name, field]) => {
    const more = [...prose(field.description), limits(field).length ? make("p", { class: "quiet" }, limits(field).join(", ")) : null];
    return row([[code(name), required.has(name) ? null : make("span", { class: "quiet" }, " optional")], brief(field), more]);
  });
  return table(["Field", "Type", "Meaning"], rows);
}

function schemaSection(name, schema) {
  const parts = [make("h3", {}, code(name)), ...prose(schema.description)];
  parts.push(schema.properties ? fields(schema) : make("p", {}, brief(schema)));
  return make("section", { class: "schema", id: `schema-${name}` }, parts);
}

function parameters(operation) {
  if (!operation.parameters?.length) return null;
  const rows = operation.parameters.map((one) =>
    row([code(one.name), one.in, brief(one.schema), [...prose(one.description), make("p", { class: "quiet" }, limits(one.schema).join(", "))]]));
  return table(["Parameter", "In", "Type", "Meaning"], rows);
}

function body(operation) {
  const content = operation.requestBody?.content["application/json"];
  if (!content) return null;
  const examples = Object.entries(content.examples || {}).map(([title, example]) =>
    make("details", {}, make("summary", {}, `Example: ${title}`), make("pre", {}, JSON.stringify(example.value, null, 2))));
  return make("div", {}, make("p", {}, "Body: ", brief(content.schema)), examples);
}

function frames(operation) {
  const told = operation["x-websocket"];
  return told ? make("p", {}, "WebSocket: ", brief(told.client), " in, ", brief(told.server), " out. ", told.description) : null;
}

function answers(operation, components) {
  return Object.entries(operation.responses).map(([status, answer]) => {
    const whole = answer.$ref ? components.responses[nameOf(answer.$ref)] : answer;
    const kinds = Object.entries(whole.content || {}).map(([type, content]) => make("p", {}, code(type), ": ", brief(content.schema)));
    const headers = Object.keys(whole.headers || {}).join(", ");
    const title = inline(`${status} ${whole.description.split("\n")[0]}`);
    return make("details", {}, make("summary", {}, ...title), prose(whole.description.split("\n").slice(1).join("\n").trim()),
      kinds, headers ? make("p", { class: "quiet" }, `Headers: ${headers}`) : null);
  });
}

function operationSection(path, method, operation, components) {
  const title = make("h3", {}, make("span", { class: `method ${method}` }, method.toUpperCase()), " ", code(path));
  return make("section", { class: "operation", id: operation.operationId }, title, make("p", {}, make("strong", {}, operation.summary)),
    prose(operation.description), parameters(operation), body(operation), frames(operation), answers(operation, components));
}

function contents(target, label, kind = "") {
  const item = make("li", kind ? { class: kind } : {}, target ? make("a", { href: `#${target}` }, label) : label);
  document.getElementById("contents").append(item);
  return item;
}

function render(spec) {
  const main = document.getElementById("main");
  main.replaceChildren(make("h1", {}, spec.info.title), ...prose(spec.info.description));
  const entries = [];
  const show = (section, item) => {
    main.append(section);
    entries.push({ section, item, text: section.textContent.toLowerCase() });
  };
  for (const tag of spec.tags) {
    contents("", tag.name, "tag");
    main.append(make("h2", {}, tag.name), ...prose(tag.description));
    for (const [path, methods] of Object.entries(spec.paths)) {
      for (const method of METHODS.filter((name) => methods[name]?.tags[0] === tag.name)) {
        const operation = methods[method];
        show(operationSection(path, method, operation, spec.components), contents(operation.operationId, `${method.toUpperCase()} ${path}`));
      }
    }
  }
  contents("", "Objects and events", "tag");
  main.append(make("h2", {}, "Objects and events"));
  for (const [name, schema] of Object.entries(spec.components.schemas)) {
    show(schemaSection(name, schema), contents(`schema-${name}`, name));
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const { section, item, text } of entries) section.hidden = item.hidden = !text.includes(wanted);
  });
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`HTTP ${answer.status}`))))
  .then(render)
  .catch((error) => document.getElementById("main").replaceChildren(make("p", { role: "alert" }, `openapi.json can't be read: ${error.message}`)));
