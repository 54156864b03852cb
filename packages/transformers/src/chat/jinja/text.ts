// str() and repr() of values, and json.dumps.
import { pythonFloat } from '@q/config';
import type { Budget } from './budget.js';
import { fail } from './errors.js';
import {
  Callable,
  Dict,
  DictView,
  Float,
  isInteger,
  isList,
  Iterator,
  Namespace,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js';

/** A float as Python writes it. */
export function floatText(x: number): string {
  if (Number.isFinite(x)) return pythonFloat(x);
  return Number.isNaN(x) ? 'nan' : x > 0 ? 'inf' : '-inf';
}

const UNPRINTABLE = /[\\\p{C}\p{Zl}\p{Zp}\p{Zs}]/gu;
const named: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t', ' ': ' ' };
const hex = (code: number, width: number) => code.toString(16).padStart(width, '0');

function escapeCharacter(character: string): string {
  if (Object.hasOwn(named, character)) return named[character];
  const code = character.codePointAt(0)!;
  if (code < 0x100) return `\\x${hex(code, 2)}`;
  return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

function stringRepr(text: string, budget: Budget): string {
  budget.write(text.length * 2);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(UNPRINTABLE, escapeCharacter);
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote;
}

/** Two texts as one. It costs a step, however long they are: the engine keeps both and copies nothing. */
export function append(a: string, b: string, budget: Budget): string {
  budget.fits(a.length + b.length);
  return a + b;
}

/** Parts with commas between, within the limits. */
export function joined(parts: readonly string[], separator: string, budget: Budget): string {
  const length = parts.reduce((sum, part) => sum + part.length, Math.max(0, parts.length - 1) * separator.length);
  budget.step(parts.length);
  budget.write(length);
  return parts.join(separator);
}

/** As repr(). */
export function repr(value: Value, budget: Budget): string {
  if (typeof value === 'string') return stringRepr(value, budget);
  if (typeof value !== 'object' || value === null || value instanceof Float) return str(value, budget);
  budget.enter();
  const text = containerRepr(value, budget);
  budget.leave();
  return text;
}

function containerRepr(value: Value & object, budget: Budget): string {
  const list = (items: readonly Value[]) =>
    joined(
      items.map((item) => repr(item, budget)),
      ', ',
      budget,
    );
  const entries = (items: readonly (readonly [Value, Value])[]) =>
    joined(
      items.map(([key, item]) => `${repr(key, budget)}: ${repr(item, budget)}`),
      ', ',
      budget,
    );
  if (isList(value)) return `[${list(value)}]`;
  if (value instanceof Tuple) return value.items.length === 1 ? `(${list(value.items)},)` : `(${list(value.items)})`;
  if (value instanceof Dict) return `{${entries(value.items())}}`;
  if (value instanceof DictView) return `dict_${value.part}([${list(value.list())}])`;
  if (value instanceof Range) {
    const { start, stop, step } = value;
    return step === 1 ? `range(${start}, ${stop})` : `range(${start}, ${stop}, ${step})`;
  }
  if (value instanceof Namespace) return `<Namespace {${entries([...value.attributes])}}>`;
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Callable) return `<function ${value.name}>`;
  return value instanceof Iterator ? `<${value.type} object>` : `<${typeName(value)}>`;
}

/** As str(): what a template prints. */
export function str(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value;
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'bigint') budget.bigInteger('text');
  if (isInteger(value)) return String(value);
  if (value instanceof Float) return floatText(value.value);
  return value instanceof Undefined ? '' : repr(value, budget);
}

export interface JsonStyle {
  readonly ensureAscii: boolean;
  /** What a level is indented by; undefined: all on one line. */
  readonly indent: string | undefined;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
}

function jsonString(text: string, ensureAscii: boolean, budget: Budget): string {
  budget.write(text.length * (ensureAscii ? 8 : 2));
  // JSON.stringify escapes lone surrogates; Python writes them as they are.
  const json = JSON.stringify(text).replace(
    /\\u(d[89a-f][0-9a-f]{2})/g,
    (escape, code: string, at: number, all: string) =>
      oddBackslashes(all, at) ? String.fromCharCode(parseInt(code, 16)) : escape,
  );
  return ensureAscii ? json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${hex(unit.charCodeAt(0), 4)}`) : json;
}

/** Whether the backslash at an offset begins an escape: an even number of them stands before it. */
function oddBackslashes(text: string, at: number): boolean {
  let count = 0;
  while (text[at - 1 - count] === '\\') count++;
  return count % 2 === 0;
}

function jsonKey(key: Value, style: JsonStyle, budget: Budget): string {
  if (typeof key === 'string') return jsonString(key, style.ensureAscii, budget);
  return `"${dumps(key, style, '', budget)}"`;
}

function sortedKeys(dict: Dict, budget: Budget): (readonly [Value, Value])[] {
  const items = dict.items();
  budget.step(items.length * 4);
  if (items.some(([key]) => typeof key !== 'string')) fail('keys that are not all strings cannot be sorted');
  return items.sort(([a], [b]) => {
    budget.key(a);
    return a! < b! ? -1 : a! > b! ? 1 : 0;
  });
}

/** As json.dumps. @param pad line break and indentation of the level around */
export function dumps(value: Value, style: JsonStyle, pad: string, budget: Budget): string {
  if (typeof value === 'string') return jsonString(value, style.ensureAscii, budget);
  if (value === null) return 'null';
  if (typeof value === 'bigint') budget.bigInteger('text');
  if (typeof value === 'boolean' || isInteger(value)) return String(value);
  if (value instanceof Float) return Number.isFinite(value.value) ? floatText(value.value) : jsonNonFinite(value.value);
  budget.enter();
  const text = jsonContainer(value, style, pad, budget);
  budget.leave();
  return text;
}

const jsonNonFinite = (x: number): string => (Number.isNaN(x) ? 'NaN' : x > 0 ? 'Infinity' : '-Infinity');

function jsonContainer(value: Value & object, style: JsonStyle, pad: string, budget: Budget): string {
  const { indent, itemSeparator, keySeparator, sortKeys } = style;
  const inner = indent === undefined ? '' : append(pad || '\n', indent, budget);
  const wrap = (open: string, parts: string[], close: string) =>
    parts.length === 0
      ? open + close
      : open + inner + joined(parts, itemSeparator + inner, budget) + (indent === undefined ? '' : pad || '\n') + close;
  if (isList(value) || value instanceof Tuple) {
    const items = isList(value) ? value : value.items;
    return wrap(
      '[',
      items.map((item) => dumps(item, style, inner, budget)),
      ']',
    );
  }
  if (!(value instanceof Dict)) return fail(`Object of type ${typeName(value)} is not JSON serializable`);
  const entries = sortKeys ? sortedKeys(value, budget) : value.items();
  const parts = entries.map(
    ([key, item]) => jsonKey(key, style, budget) + keySeparator + dumps(item, style, inner, budget),
  );
  return wrap('{', parts, '}');
}
