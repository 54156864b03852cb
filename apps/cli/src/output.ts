import Table from 'cli-table3';
import pc from 'picocolors';

const forced = process.env.FORCE_COLOR !== undefined && process.env.FORCE_COLOR !== '0';

/** Colours of what goes to stdout: none in pipes, also under CI, unless FORCE_COLOR asks for them. */
export const colors = pc.createColors(pc.isColorSupported && (process.stdout.isTTY || forced));

/** Bytes with three digits: 14.7 MB. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`;
}

/** A whole number with thousands separated. */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US');

export const rate = (value: number): string => (value >= 100 ? count(value) : value.toPrecision(3));

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

export const print = (line = ''): void => void process.stdout.write(`${line}\n`);
export const note = (line = ''): void => void process.stderr.write(`${line}\n`);
export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2));

/** Rows of name and value. */
export function printFields(
  rows: readonly (readonly [string, string | number | undefined])[],
  to: (line: string) => void = print,
): void {
  const shown = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length));
  for (const [name, value] of shown) to(`${colors.dim(name.padEnd(width))}  ${String(value)}`);
}

/** A table without borders; columns whose heading ends in `>` are aligned right. */
export function printTable(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const none = Object.fromEntries(
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
  const table = new Table({
    head: headings.map((heading) => colors.dim(heading.replace(/>$/, ''))),
    colAligns: headings.map((heading) => (heading.endsWith('>') ? 'right' : 'left')),
    chars: { ...none, middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  table.push(...rows.map((row) => row.map(String)));
  print(table.toString());
}
