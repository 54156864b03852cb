import { describe, expect, it } from 'vitest';
import { nativeHeader } from './header.js';
import { marks } from './marks.js';
import { commandNames, commands, type CommandName, type Fields } from './schema.js';

const header = nativeHeader();
const argsOf = (name: CommandName) => `${name[0].toUpperCase()}${name.slice(1)}Args`;

/** The struct of a command's arguments in the header. */
const struct = (name: CommandName) => {
  const from = header.indexOf(`struct ${argsOf(name)} {`);
  return header.slice(from, header.indexOf('\n};', from));
};

/** Tensor fields as each_tensor visits them, with their marks. */
function visited(name: CommandName): Record<string, boolean> {
  const calls = struct(name).matchAll(/ f\(([\w.[\]]+), (true|false)\);/g);
  const camel = (text: string) => text.replace(/_(\w)/g, (_, c: string) => c.toUpperCase());
  return Object.fromEntries([...calls].map(([, field, early]) => [camel(field.replace('[i]', '')), early === 'true']));
}

const tensorsOf = (fields: Fields): string[] =>
  Object.entries(fields).flatMap(([name, type]) => {
    if (typeof type !== 'string') return tensorsOf(type.repeat).map((item) => `${name}.${item}`);
    return type.startsWith('tensor') ? [name] : [];
  });

describe('native/q_ops.h', () => {
  it.each(commandNames)('%s: every tensor once, early where it is marked so', (name) => {
    const early: readonly string[] = marks[name]?.early ?? [];
    const all = tensorsOf(commands[name]);
    expect(visited(name)).toEqual(Object.fromEntries(all.map((field) => [field, early.includes(field)])));
    expect(struct(name)).toContain(`kLoadsEarly = ${early.length > 0};`);
    expect(struct(name)).toContain(`kCommand = Command::${name};`);
  });

  it('lists every command with its arguments, in the order of the codes', () => {
    const from = header.indexOf('#define Q_EACH_COMMAND(X)');
    const list = [...header.slice(from, header.indexOf('\n\n', from)).matchAll(/X\((\w+), (\w+)\)/g)];
    expect(list.map(([, name, args]) => [name, args])).toEqual(commandNames.map((name) => [name, argsOf(name)]));
  });

  it('says which commands may wait for which', () => {
    expect(header).toContain('#define Q_EACH_JOIN(X) \\\n  X(RmsNormArgs, LinearArgs)\n');
    expect(header).toContain('return a.rows <= 16 && !a.residual && !a.sum;');
    expect(header).toContain('return next.x.data == a.out.data;');
    for (const name of commandNames) expect(struct(name)).toContain(`kMayWait = ${name === 'rmsNorm'};`);
  });
});
