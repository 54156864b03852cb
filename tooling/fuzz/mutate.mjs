// Makes damaged files out of good ones.
import * as hostile from './hostile.mjs';

const clone = (value) => {
  if (Array.isArray(value)) return value.map(clone);
  if (value === null || typeof value !== 'object' || value instanceof hostile.Raw) return value;
  const copy = {};
  for (const [name, item] of Object.entries(value)) hostile.set(copy, name, clone(item));
  return copy;
};

const isBranch = (value) => value !== null && typeof value === 'object' && !(value instanceof hostile.Raw);

/** Places of the tree, as [parent, key]; small branches as likely as large ones. */
function place(random, root) {
  let [parent, key] = [undefined, undefined];
  let at = root;
  while (isBranch(at)) {
    const keys = Object.keys(at);
    if (keys.length === 0) break;
    [parent, key] = [at, random.pick(keys)];
    at = Object.getOwnPropertyDescriptor(parent, key).value;
    if (random.chance(0.15)) break;
  }
  return [parent, key];
}

const nearby = (random, number) =>
  random.pick([
    number + 1,
    number - 1,
    -number,
    number * 2,
    number / 2,
    number * 1000,
    number + 0.5,
    number * 2 ** 32,
    random.pick(hostile.numbers),
  ]);

function change(random, old) {
  if (typeof old === 'number' && random.chance(0.6)) return nearby(random, old);
  if (typeof old === 'string' && random.chance(0.5)) return mutateText(random, old);
  if (Array.isArray(old) && old.length > 0 && random.chance(0.4))
    return random.pick([old.slice(0, -1), [...old, ...old], [...old].reverse(), [old], old.flat()]);
  return hostile.value(random);
}

function mutateOnce(random, root) {
  const [parent, key] = place(random, root);
  if (parent === undefined) return hostile.value(random);
  const old = parent[key];
  const kind = random.int(0, 9);
  if (kind === 0) {
    if (Array.isArray(parent)) parent.splice(Number(key), 1);
    else delete parent[key];
  } else if (kind === 1) {
    if (Array.isArray(parent)) parent.push(clone(old));
    else hostile.set(parent, random.pick(hostile.names), clone(old));
  } else if (kind === 2 && !Array.isArray(parent)) {
    delete parent[key];
    hostile.set(parent, random.chance(0.5) ? random.pick(hostile.names) : mutateText(random, key), old);
  } else if (kind === 3) {
    const [otherParent, otherKey] = place(random, root);
    hostile.set(parent, key, otherParent === undefined ? null : clone(otherParent[otherKey]));
  } else hostile.set(parent, key, change(random, old));
  return root;
}

/** A changed copy of a JSON value. @param most changes at most; half of the copies have one */
export function mutateJson(random, value, most = 4) {
  let changed = clone(value);
  const count = random.chance(0.5) ? 1 : random.int(1, most);
  for (let i = 0; i < count; i++) changed = mutateOnce(random, changed);
  return changed;
}

/** A copy of a JSON object with something large in it: in the place of a value, or beside them. */
export function enlargeJson(random, object) {
  const changed = random.chance(0.3) ? mutateJson(random, object) : clone(object);
  const [parent, key] = isBranch(changed) ? place(random, changed) : [];
  if (parent === undefined || random.chance(0.05)) return hostile.large(random);
  if (random.chance(0.1))
    for (let i = 0; i < 20_000; i++)
      hostile.set(changed, `${random.pick(hostile.names)}${i}`, random.pick([i, 'x', null]));
  else if (random.chance(0.2)) hostile.set(parent, random.pick(hostile.names), hostile.large(random));
  else hostile.set(parent, key, hostile.large(random));
  return changed;
}

/** JSON text of a value that may hold {@link hostile.Raw}. */
export function jsonText(value) {
  if (value instanceof hostile.Raw) return value.text;
  if (Array.isArray(value)) return `[${value.map(jsonText).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  return `{${Object.entries(value)
    .map(([name, item]) => `${JSON.stringify(name)}:${jsonText(item)}`)
    .join(',')}}`;
}

/** A JSON file that was changed: mostly as a value, now and then as bytes. */
export function mutateJsonFile(random, value) {
  const text = Buffer.from(jsonText(random.chance(0.9) ? mutateJson(random, value) : value));
  return random.chance(0.08) ? mutateBytes(random, text) : text;
}

const runOf = (random, length) => {
  const start = random.int(0, Math.max(0, length - 1));
  return [start, Math.min(length, start + random.pick([1, 1, 2, 4, 8, 16, 100]))];
};

function mutateBytesOnce(random, bytes) {
  const [start, end] = runOf(random, bytes.length);
  const [before, run, after] = [bytes.subarray(0, start), bytes.subarray(start, end), bytes.subarray(end)];
  switch (random.int(0, 8)) {
    case 0:
      return Buffer.concat([before, after]);
    case 1:
      return Buffer.concat([before, run, run, after]);
    case 2:
      return Buffer.concat([before, random.bytes(run.length), after]);
    case 3:
      return Buffer.concat([before, Buffer.alloc(run.length, random.pick([0, 0xff, 0x7f, 0x80])), after]);
    case 4:
      return Buffer.from(before);
    case 5:
      return Buffer.concat([before, Buffer.from(random.pick(hostile.strings).slice(0, 200)), after]);
    default: {
      const copy = Buffer.from(bytes);
      if (copy.length > 0) copy[start] ^= 1 << random.int(0, 7);
      return copy;
    }
  }
}

/** A changed copy of bytes. */
export function mutateBytes(random, bytes) {
  let changed = Buffer.from(bytes);
  const count = random.pick([1, 1, 2, 5]);
  for (let i = 0; i < count; i++) changed = mutateBytesOnce(random, changed);
  return changed;
}

/** A changed copy of a text. @param words what may be put in */
export function mutateText(random, text, words = hostile.strings) {
  const [start, end] = runOf(random, text.length);
  const word = random.pick(words);
  return random.pick([
    () => text.slice(0, start) + text.slice(end),
    () => text.slice(0, start) + word + text.slice(start),
    () => text.slice(0, start) + word + text.slice(end),
    () => text.slice(0, start) + text.slice(start, end).repeat(random.int(2, 50)) + text.slice(end),
    () => text.slice(0, end),
    () => text.toUpperCase(),
    () => word,
  ])();
}
