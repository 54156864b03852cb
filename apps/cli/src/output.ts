import Table from 'cli-table3';
import pc from 'picocolors';
import { visible, visibleJson, visibleText } from './escape.js';

const forced = process.env.FORCE_COLOR !== undefined && process.env.FORCE_COLOR !== '0';
const stdoutColors = pc.createColors(pc.isColorSupported && (process.stdout.isTTY || forced));
const stderrColors = pc.createColors(pc.isColorSupported && (process.stderr.isTTY || forced));

type Color = 'bold' | 'dim' | 'green' | 'red' | 'yellow';

/** Text in a colour. Not a string, so that printing can tell Q's own escape codes from those in a name of a file. */
export class Painted {
  constructor(
    readonly text: string,
    readonly color: Color,
  ) {}

  /** The text alone. */
  toString(): string {
    return this.text;
  }
}

/** Colours of what is printed: none in pipes, also under CI, unless FORCE_COLOR asks for them. */
export const paint = {
  bold: (text: string) => new Painted(text, 'bold'),
  dim: (text: string) => new Painted(text, 'dim'),
  green: (text: string) => new Painted(text, 'green'),
  red: (text: string) => new Painted(text, 'red'),
  yellow: (text: string) => new Painted(text, 'yellow'),
};

/** A line is made of plain and coloured parts. */
export type Part = string | number | Painted;

/** Parts as a terminal gets them: escaped, then coloured. */
const rendered = (parts: readonly Part[], escape: (text: string) => string, colors = stdoutColors): string =>
  parts
    .map((part) => (part instanceof Painted ? colors[part.color](escape(part.text)) : escape(String(part))))
    .join('');

/** Bytes with three digits: 14.7 MB. */
export { formatSize as bytes } from '@q/transformers';

/** A whole number with thousands separated. */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US');

export const rate = (value: number): string => (value >= 100 ? count(value) : value.toPrecision(3));

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

/** One line on stdout; control characters in it are made visible, newlines too. */
export const print = (...parts: readonly Part[]): void => void process.stdout.write(`${rendered(parts, visible)}\n`);

/** One line on stderr, as {@link print}. */
export const note = (...parts: readonly Part[]): void =>
  void process.stderr.write(`${rendered(parts, visible, stderrColors)}\n`);

/** Several lines on stdout; newlines and tabs stay. */
export const printText = (...parts: readonly Part[]): void =>
  void process.stdout.write(`${rendered(parts, visibleText)}\n`);

/** Several lines on stderr. */
export const noteText = (...parts: readonly Part[]): void =>
  void process.stderr.write(`${rendered(parts, visibleText, stderrColors)}\n`);

/** What a model writes: as it is into a pipe or file, without control sequences onto a terminal. */
export const writeModelText = (...parts: readonly Part[]): void =>
  void process.stdout.write(rendered(parts, process.stdout.isTTY ? visibleText : String));

/** A warning on stderr: a line, or with `json` a line of JSON, as everything on stderr is then. */
export const warn = (line: string, { json = false }: { json?: boolean } = {}): void =>
  json ? noteJson({ warning: line }) : note(`warning: ${line}`);

export const printJson = (value: unknown): void =>
  void process.stdout.write(`${visibleJson(JSON.stringify(value, null, 2))}\n`);

/** One line of JSON on stderr. */
export const noteJson = (value: unknown): void => void process.stderr.write(`${visibleJson(JSON.stringify(value))}\n`);

/** Rows of name and value; a value may have several parts. */
export function printFields(
  rows: readonly (readonly [string, Part | readonly Part[] | undefined])[],
  to: (...parts: Part[]) => void = print,
): void {
  const shown = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(...shown.map(([name]) => visible(name).length));
  for (const [name, value] of shown)
    to(paint.dim(visible(name).padEnd(width)), '  ', ...(Array.isArray(value) ? (value as Part[]) : [value as Part]));
}

const noBorders = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
  ].map((key) => [key, '']),
);

/** A table without borders; columns whose heading ends in `>` are aligned right. */
export function printTable(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const table = new Table({
    head: headings.map((heading) => rendered([paint.dim(heading.replace(/>$/, ''))], visible)),
    colAligns: headings.map((heading) => (heading.endsWith('>') ? 'right' : 'left')),
    chars: { ...noBorders, middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  table.push(...rows.map((row) => row.map((cell) => visible(String(cell)))));
  process.stdout.write(`${table.toString()}\n`);
}
