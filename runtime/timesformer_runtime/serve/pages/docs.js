/** Shows openapi.json as a page, without any other server. */

function make(name, text = "", ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

/** The values that a parameter may have, in words. */
function values(schema) {
  if (schema.enum) return schema.enum.join(", ");
  if (schema.const !== undefined) return schema.const;
  if (schema.anyOf) {
    return schema.anyOf.filter(({ type }) => type !== "null").map(values).join(" or ");
  }
  const bounds = [];
  if (schema.minimum !== undefined) bounds.push(`at least ${schema.minimum}`);
  if (schema.maximum !== undefined) bounds.push(`at most ${schema.maximum}`);
  return [schema.type, ...bounds].join(" ");
}

function parameterTable(parameters) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of ["Name", "Values", "Default", "Meaning"]) head.append(make("th", title));
  for (const { name, required, schema, description } of parameters) {
    const row = table.insertRow();
    row.append(make("td", "", make("code", name)));
    row.insertCell().textContent = values(schema);
    row.insertCell().textContent = required ? "needed" : String(schema.default ?? "");
    row.insertCell().textContent = description ?? schema.description ?? "";
  }
  const scroll = make("div", "", table);
  scroll.className = "scroll";
  return scroll;
}

function request(method, path, { summary, description, parameters, requestBody, security }) {
  const section = make("section", "", make("h2", summary));
  section.className = "card";
  section.append(make("p", "", make("code", `${method.toUpperCase()} ${path}`)));
  if (security) {
    section.append(make("p", "Header: ", make("code", "Authorization: Bearer TOKEN")));
  }
  if (description) section.append(make("p", description));
  if (requestBody) {
    const kinds = Object.keys(requestBody.content).join(", ");
    section.append(make("p", `Body: ${requestBody.description ?? ""} (${kinds})`));
  }
  if (parameters?.length) section.append(parameterTable(parameters));
  return section;
}

const { paths } = await (await fetch("openapi.json")).json();
const sections = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods)
    .filter(([method]) => method !== "head")
    .map(([method, described]) => request(method, path, described)),
);
document.getElementById("requests").replaceChildren(...sections);
