// The C++ of the marks, and the lists of commands that the native packages go through, in native/q_ops.h.
import { pascal, snake } from './header-check.js';
import { isTensor, marks, type Join } from './marks.js';
import { commandNames, commands, type CommandName, type Fields } from './schema.js';

const argsOf = (name: CommandName) => `${pascal(name)}Args`;

const list = (name: string, items: readonly string[]) =>
  [`#define ${name}(X)`, ...items.map((item) => `  X(${item})`)].join(' \\\n');

interface Joining {
  readonly name: CommandName;
  readonly join: Join<CommandName>;
}
const joining: readonly Joining[] = commandNames.flatMap((name) => {
  const join = marks[name]?.joins as Join<CommandName> | undefined;
  return join ? [{ name, join }] : [];
});

/** Members that say what a command is: its code and its tensors, each with its mark. */
export function traits(name: CommandName): string[] {
  const early: readonly string[] = marks[name]?.early ?? [];
  const visit = (path: string, variable: string) => `f(${variable}, ${early.includes(path)});`;
  const lines = Object.entries(commands[name] as Fields).flatMap(([field, type]) => {
    if (typeof type === 'string') return isTensor(type) ? [`    ${visit(field, snake(field))}`] : [];
    const items = Object.entries(type.repeat).filter(([, of]) => typeof of === 'string' && isTensor(of));
    return [
      `    for (int64_t i = 0; i < ${snake(field)}_count; ++i) {`,
      ...items.map(([item]) => `      ${visit(`${field}.${item}`, `${snake(field)}[i].${snake(item)}`)}`),
      '    }',
    ];
  });
  return [
    `  static constexpr Command kCommand = Command::${name};`,
    `  static constexpr bool kLoadsEarly = ${early.length > 0};`,
    `  static constexpr bool kMayWait = ${marks[name]?.joins !== undefined};`,
    '  template <class F> void each_tensor(F&& f) const {',
    ...lines,
    '  }',
  ];
}

const joinFunctions = ({ name, join }: Joining) =>
  [
    `inline bool may_wait(const ${argsOf(name)}& a) {`,
    `  return a.rows <= ${join.mostRows}${join.without.map((field) => ` && !a.${snake(field)}`).join('')};`,
    '}',
    `template <> inline constexpr bool kJoins<${argsOf(name)}, ${argsOf(join.command)}> = true;`,
    `inline bool meets(const ${argsOf(name)}& a, const ${argsOf(join.command)}& next) {`,
    `  return next.${snake(join.into)}.data == a.${snake(join.out)}.data;`,
    '}',
  ].join('\n');

/** The lists. A driver declares its kernels through them, so that a missing one does not link. */
export const commandLists = (): string =>
  [
    '/// X(command, Args) for every command, in the order of their codes.',
    list(
      'Q_EACH_COMMAND',
      commandNames.map((name) => `${name}, ${argsOf(name)}`),
    ),
    '',
    '/// X(Args, NextArgs) for commands that may wait, where may_wait(args), for the one that reads what they make, which',
    '/// meets(args, next), to run with it in one launch.',
    list(
      'Q_EACH_JOIN',
      joining.map(({ name, join }) => `${argsOf(name)}, ${argsOf(join.command)}`),
    ),
    'template <class Args, class NextArgs> constexpr bool kJoins = false;',
    ...joining.map(joinFunctions),
  ].join('\n');
