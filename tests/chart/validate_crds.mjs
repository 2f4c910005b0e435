// node validate_crds.mjs [TOOLS] < objects.json
//
// Reads a JSON list of Kubernetes objects and holds those of KEDA and of the Prometheus operator to the schemas
// of their CRDs. Strictly: a field that the CRD does not know is an error too, where an API server would drop it
// in silence. Other groups are left to other tools. Prints one line for each error and a count at the end;
// status 1 if there was any error or a kind of these groups that the CRDs do not have. TOOLS is the folder of
// node_modules, CONCH_HOME/chart-tools by default.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const tools = path.resolve(process.argv[2] ?? path.join(process.env.CONCH_HOME ?? ".conch", "chart-tools"));
const packages = { "keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator" };

/** Returns the model of an object's kind, or undefined if its group is another tool's. */
async function modelOf({ apiVersion, kind }) {
  const [group, version] = apiVersion.split("/");
  if (!(group in packages)) return undefined;
  const folder = path.join(tools, "node_modules/@kubernetes-models", packages[group]);
  if (!existsSync(folder)) throw new Error(`${folder} is missing; run scripts/chart_tools.sh`);
  const file = path.join(folder, group, version, `${kind}.js`);
  if (!existsSync(file)) throw new Error(`the CRDs of ${apiVersion} have no such kind`);
  return (await import(pathToFileURL(file)))[kind];
}

/**
 * Returns a copy of `object` that adds the path of each field that nobody has read yet to `unread`, and takes it
 * out when somebody does. The validators are code made from the CRDs: they read each field that a CRD has and no
 * other.
 */
function watched(object, unread, at = "") {
  if (object === null || typeof object !== "object") return object;
  const copy = Array.isArray(object) ? [] : {};
  for (const [name, value] of Object.entries(object)) {
    const place = Array.isArray(object) ? `${at}[${name}]` : `${at}.${name}`;
    const inner = watched(value, unread, place);
    unread.add(place);
    Object.defineProperty(copy, name, {
      enumerable: true,
      configurable: true,
      get: () => (unread.delete(place), inner),
    });
  }
  return copy;
}

/** Returns the outermost of the paths: what lies in an unknown field is unknown with it. */
function outermost(paths) {
  return [...paths].filter((a) => ![...paths].some((b) => a !== b && (a.startsWith(`${b}.`) || a.startsWith(`${b}[`))));
}

/** Returns sentences about what is wrong with an object, and whether its kind is looked at here. */
async function problems(object) {
  const Model = await modelOf(object);
  if (!Model) return { looked: false, found: [] };
  new Model(object).validate();
  const unread = new Set();
  const { apiVersion, kind, ...rest } = object;
  const model = new Model({});
  Object.defineProperties(model, Object.getOwnPropertyDescriptors(watched(rest, unread)));
  model.validate();
  return { looked: true, found: outermost(unread).map((place) => `${place} is not a field`) };
}

let count = 0;
const errors = [];
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${object.kind} ${object.metadata?.name}`;
  try {
    const { looked, found } = await problems(object);
    count += looked ? 1 : 0;
    errors.push(...found.map((problem) => `${name}: ${problem}`));
  } catch (error) {
    errors.push(`${name}: ${error.message}`);
  }
}
for (const error of errors) console.error(error);
console.log(`${count} objects of KEDA and the Prometheus operator, ${errors.length} errors`);
process.exit(errors.length ? 1 : 0);
