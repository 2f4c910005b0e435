// node validate_crds.mjs NODE_MODULES < lines of ["name", {object}]
//
// Holds objects of KEDA, the Prometheus operator and the Gateway API to the schemas of their CRDs. Strictly: a
// field that the CRD does not know is an error too, where an API server would drop it in silence. Prints one line
// for each error and nothing else; a kind that the CRDs do not have is an error.
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "gateway.networking.k8s.io": "gateway-api",
};

/** Returns the model of an object's kind. */
async function modelOf({ apiVersion, kind }) {
  const [group, version] = apiVersion.split("/");
  if (!(group in PACKAGES)) throw new Error(`${apiVersion} is none of ${Object.keys(PACKAGES).join(", ")}`);
  const folder = path.resolve(process.argv[2], "@kubernetes-models", PACKAGES[group]);
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

/** Returns the outermost of the paths: what lies in an unknown field is unknown too. */
function outermost(paths) {
  return [...paths].filter((a) => ![...paths].some((b) => a !== b && (a.startsWith(`${b}.`) || a.startsWith(`${b}[`))));
}

/** Returns sentences about what is wrong with an object. */
async function problems(object) {
  const Model = await modelOf(object);
  new Model(object).validate();
  const unread = new Set();
  const model = new Model({});
  Object.defineProperties(model, Object.getOwnPropertyDescriptors(watched(object, unread)));
  model.validate();
  return outermost(unread).map((place) => `${place} is not a field`);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [name, object] = JSON.parse(line);
  const found = await problems(object).catch((error) => [error.message.slice(0, 500)]);
  for (const problem of found) console.log(`${name}: ${problem}`);
}
