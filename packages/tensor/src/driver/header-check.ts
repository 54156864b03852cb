// The C++ of the rules: a function `check` for the arguments of each command, in native/q_ops.h.
import { knows } from './check.js';
import { dtypeCodeOf, parseExpression, type Expression } from './expression.js';
import { rules, type Rules } from './rules.js';
import { commandNames, commands, type Fields } from './schema.js';

export const pascal = (name: string): string => name[0].toUpperCase() + name.slice(1);
export const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

/** The fields that expressions may name, innermost first, and the C++ variable that holds them. */
type Levels = readonly { readonly fields: Fields; readonly variable: string }[];
interface Code {
  readonly text: string;
  readonly type: 'size' | 'bool';
}

const size = (text: string): Code => ({ text: `Size{${text}}`, type: 'size' });
const bool = (text: string): Code => ({ text, type: 'bool' });
const truth = ({ text, type }: Code) => (type === 'bool' ? text : `(${text}.value != 0)`);

function named(levels: Levels, name: string): { text: string; isTensor: boolean } {
  const level = levels.find(({ fields }) => knows(fields, name));
  if (!level) throw new Error(`no field ${name}`);
  const type = level.fields[name];
  return { text: `${level.variable}.${snake(name)}`, isTensor: type === 'tensor' || type === 'tensor?' };
}

function operator(symbol: string, left: Code, right: Code): Code {
  if (symbol === '&&' || symbol === '||') return bool(`(${truth(left)} ${symbol} ${truth(right)})`);
  if (symbol === '+' || symbol === '*' || symbol === '/' || symbol === '%')
    return { text: `(${left.text} ${symbol} ${right.text})`, type: 'size' };
  if (left.type === 'bool' || right.type === 'bool') return bool(`(${truth(left)} ${symbol} ${truth(right)})`);
  return bool(`(${left.text}.value ${symbol} ${right.text}.value)`);
}

function call(name: string, list: readonly Expression[], levels: Levels): Code {
  if (name === 'ceil' || name === 'strided')
    return { text: `${name}(${list.map((item) => code(item, levels).text).join(', ')})`, type: 'size' };
  const path = list[0].kind === 'name' ? list[0].name : '';
  const [first, field] = path.split('.');
  const { text } = named(levels, first);
  if (name === 'length') return size(`${text}_count`);
  if (name === 'count') return { text: `elements_in(${text})`, type: 'size' };
  if (name === 'bytes') return size(`${text}.bytes`);
  if (name === 'dtype') return size(`int64_t(${text}.dtype)`);
  if (name === 'first') return size(`${text}_count > 0 ? ${text}[0].${snake(field)} : 0`);
  if (name === 'last') return size(`${text}_count > 0 ? ${text}[${text}_count - 1].${snake(field)} : 0`);
  if (name === 'sum')
    return {
      text: `sum_of(${text}, ${text}_count, [](const auto& item) { return item.${snake(field)}; })`,
      type: 'size',
    };
  throw new Error(`there is no function ${name}`);
}

function code(tree: Expression, levels: Levels): Code {
  switch (tree.kind) {
    case 'number':
      return size(String(tree.value));
    case 'name': {
      if (dtypeCodeOf(tree.name) !== undefined) return size(`int64_t(DType::${tree.name})`);
      const { text, isTensor } = named(levels, tree.name);
      return isTensor ? bool(`bool(${text})`) : size(text);
    }
    case 'call':
      return call(tree.name, tree.arguments, levels);
    case 'not':
      return bool(`!${truth(code(tree.of, levels))}`);
    case 'operator':
      return operator(tree.operator, code(tree.left, levels), code(tree.right, levels));
  }
}

const expression = (text: string, levels: Levels) => code(parseExpression(text), levels);
const condition = (text: string, levels: Levels) => truth(expression(text, levels)).replace(/^\((.*)\)$/s, balanced);
/** Inside of one pair of brackets, when the first and the last belong together. */
const balanced = (whole: string, inside: string): string => {
  let depth = 0;
  for (const c of inside) {
    depth += Number(c === '(') - Number(c === ')');
    if (depth < 0) return whole;
  }
  return inside;
};

const integer = (name: string, [least, largest]: readonly [number, number], variable: string) =>
  `c.integer("${name}", ${variable}.${snake(name)}, ${least}, ${largest});`;

function applied(
  { integers = {}, notNegative = [], tensors = {}, where = [] }: Rules,
  levels: Levels,
  required: boolean,
) {
  const [{ fields, variable }] = levels;
  return [
    ...Object.entries(integers)
      .filter(([name]) => required && knows(fields, name))
      .map(([name, range]) => integer(name, range, variable)),
    ...notNegative.map((name) => `c.not_negative("${name}", ${variable}.${snake(name)});`),
    ...Object.entries(tensors)
      .filter(([name]) => knows(fields, name))
      .map(([name, [kind, count]]) => {
        const needed = count === undefined ? 'Size{0}' : expression(count, levels).text;
        return `c.tensor("${name}", ${variable}.${snake(name)}, Kind::${kind === 'float' ? 'floating' : kind}, ${needed}, ${required});`;
      }),
    ...where.map(([holds, message]) => `c.where(${condition(holds, levels)}, "${message}");`),
  ];
}

function apart({ writes = [], inPlace = [] }: Rules, levels: Levels): string[] {
  const [{ fields, variable }] = levels;
  const lines: string[] = [];
  for (const written of writes.filter((name) => knows(fields, name))) {
    const target = `"${written}", ${variable}.${snake(written)}`;
    for (const [name, type] of Object.entries(fields)) {
      const together = inPlace.some(([out, other]) => out === written && other === name);
      if (type === 'tensor' || type === 'tensor?') {
        if (name !== written) lines.push(`c.apart(${target}, "${name}", ${variable}.${snake(name)}, ${together});`);
      } else if (typeof type !== 'string') {
        const own = Object.entries(type.repeat).filter(([, of]) => of === 'tensor' || of === 'tensor?');
        lines.push(
          `for (int64_t i = 0; i < ${variable}.${snake(name)}_count; ++i) {`,
          ...own.map(
            ([item]) => `  c.apart(${target}, "${name}.${item}", ${variable}.${snake(name)}[i].${snake(item)}, false);`,
          ),
          '}',
        );
      }
    }
  }
  return lines;
}

function body(own: Rules, levels: Levels): string[] {
  const [{ fields, variable }] = levels;
  const lines = Object.entries(fields)
    .filter(([, type]) => type === 'int')
    .map(([name]) => integer(name, own.integers?.[name] ?? [0, 2 ** 31 - 1], variable));
  lines.push(...applied(own, levels, false));
  for (const one of own.cases ?? []) {
    const inside = applied(one, levels, true);
    const when = condition(one.when, levels);
    lines.push(...(when === 'Size{1}.value != 0' ? inside : [`if (${when}) {`, ...inside.map(indent), '}']));
  }
  for (const [list, item] of Object.entries(own.items ?? {})) {
    const { repeat } = fields[list] as { repeat: Fields };
    lines.push(
      `for (int64_t i = 0; i < ${variable}.${snake(list)}_count; ++i) {`,
      `  const auto& item = ${variable}.${snake(list)}[i];`,
      `  c.enter("${list}", i);`,
      ...body(item, [{ fields: repeat, variable: 'item' }, ...levels]).map(indent),
      '  c.leave();',
      '}',
    );
  }
  return [...lines, ...apart(own, levels)];
}

const indent = (line: string) => `  ${line}`;

/** A `check` for every command. */
export const checkFunctions = (): string =>
  commandNames
    .map((name) =>
      [
        `inline void check(const ${pascal(name)}Args& a, Check& c) {`,
        ...body(rules[name], [{ fields: commands[name], variable: 'a' }]).map(indent),
        '}',
      ].join('\n'),
    )
    .join('\n\n');

/** What the functions are written in; hand-written, and the same for all commands. */
export const checkSupport = `/// What is wrong with the arguments of a command; the message begins with a field.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Words to arguments. A driver says where a buffer is; every tensor is checked against its buffer here.
class Words {
 public:
  struct Memory {
    void* data;  // null: there is no such buffer
    int64_t bytes;
  };
  Words(const double* words, size_t count) : words_(words), count_(count) {}
  virtual ~Words() = default;

  double number(const char* name) {
    if (at_ >= count_) refuse(name, "is missing: there are too few arguments");
    return words_[at_++];
  }
  int64_t integer(const char* name, const char* part = nullptr) {
    const double value = number(name);
    if (!(value >= -9007199254740992.0 && value <= 9007199254740992.0) || value != double(int64_t(value)))
      refuse(name, (part ? "has " + std::string(part) + " " : "is ") + std::to_string(value) + ", must be an integer");
    return int64_t(value);
  }
  int64_t count(const char* name, int64_t most) {
    const int64_t value = integer(name);
    if (value < 0 || value > most)
      refuse(name, "has " + std::to_string(value) + " items, at most " + std::to_string(most) + " are taken");
    return value;
  }
  Tensor tensor(const char* name, bool required) {
    const int64_t id = integer(name, "buffer"), offset = integer(name, "offset"), dtype = integer(name, "dtype code"),
                  bytes = integer(name, "bytes");
    if (id == 0) {
      if (required) refuse(name, "is missing");
      return {nullptr, DType::f32, 0};
    }
    if (dtype < 0 || dtype > int64_t(DType::boolean)) refuse(name, "has an unknown dtype code " + std::to_string(dtype));
    const Memory memory = this->memory(id);
    if (!memory.data)
      refuse(name, "refers to buffer " + std::to_string(id) + ", which does not exist or was released");
    if (offset < 0 || bytes < 0 || offset > memory.bytes || bytes > memory.bytes - offset)
      refuse(name, "has " + std::to_string(bytes) + " bytes from byte " + std::to_string(offset) + " of buffer " +
                       std::to_string(id) + ", which has " + std::to_string(memory.bytes));
    const int64_t element = element_bytes(DType(dtype));
    if (offset % element != 0 || bytes % element != 0)
      refuse(name, "has offset " + std::to_string(offset) + " and " + std::to_string(bytes) +
                       " bytes, which must be multiples of " + std::to_string(element));
    return {static_cast<char*>(memory.data) + offset, DType(dtype), bytes};
  }
  void enter(const char* list, int64_t i) { prefix_ = std::string(list) + "[" + std::to_string(i) + "]."; }
  void leave() { prefix_.clear(); }
  void finish() {
    if (at_ != count_) throw Refused("there are too many arguments");
  }

 protected:
  virtual Memory memory(int64_t buffer) = 0;

 private:
  [[noreturn]] void refuse(const char* name, const std::string& what) { throw Refused(prefix_ + name + " " + what); }
  const double* words_;
  size_t count_, at_ = 0;
  std::string prefix_;
};`;

export const checkHelpers = `/// A number that is not negative and stops at the largest integer instead of wrapping.
struct Size {
  int64_t value;
};
inline Size operator+(Size a, Size b) {
  int64_t sum;
  return {__builtin_add_overflow(a.value, b.value, &sum) ? INT64_MAX : sum};
}
inline Size operator*(Size a, Size b) {
  int64_t product;
  return {__builtin_mul_overflow(a.value, b.value, &product) ? INT64_MAX : product};
}
inline Size operator/(Size a, Size b) { return {b.value == 0 ? INT64_MAX : a.value / b.value}; }
inline Size operator%(Size a, Size b) { return {b.value == 0 ? INT64_MAX : a.value % b.value}; }
inline Size ceil(Size a, Size b) {
  if (b.value == 0) return {a.value == 0 ? 0 : INT64_MAX};
  return {a.value / b.value + (a.value % b.value != 0)};
}
/// What rows of \`width\` take up that begin \`stride\` apart.
inline Size strided(Size rows, Size stride, Size width) {
  return rows.value == 0 ? Size{0} : Size{rows.value - 1} * stride + width;
}
inline Size elements_in(const Tensor& t) { return {t.bytes / element_bytes(t.dtype)}; }
template <class Item, class Of> Size sum_of(const Item* items, int64_t count, Of of) {
  Size sum{0};
  for (int64_t i = 0; i < count; ++i) sum = sum + Size{of(items[i])};
  return sum;
}

/// What a tensor may hold; see src/driver/rules.ts.
enum class Kind { act, logits, floating, f32, i32, u8, i8, any };

/// What \`check\` of a command calls; throws Refused.
class Check {
 public:
  /// \`f32_only\`: the device's activations are f32, else f32, f16 or bf16.
  explicit Check(bool f32_only) : f32_only_(f32_only) {}

  void integer(const char* name, int64_t value, int64_t least, int64_t largest) const {
    if (value < least || value > largest)
      refuse(name, "is " + std::to_string(value) + ", must be an integer from " + std::to_string(least) + " to " +
                       std::to_string(largest));
  }
  void not_negative(const char* name, double value) const {
    if (!(value >= 0)) refuse(name, "is " + std::to_string(value) + ", must not be negative");
  }
  void tensor(const char* name, const Tensor& t, Kind kind, Size needed, bool required) {
    if (!t) {
      if (required) refuse(name, "is missing");
      return;
    }
    dtype(name, t.dtype, kind);
    const int64_t held = elements_in(t).value;
    if (held < needed.value)
      refuse(name, "holds " + std::to_string(held) + " elements, " + std::to_string(needed.value) + " are needed");
  }
  void where(bool holds, const char* message) const {
    if (!holds) throw Refused(prefix_ + message);
  }
  /// Two tensors have no byte in common; or begin at the same one, when \`together\`.
  void apart(const char* name, const Tensor& a, const char* other, const Tensor& b, bool together) const {
    if (!a || !b || a.bytes == 0 || b.bytes == 0 || (together && a.data == b.data)) return;
    const uintptr_t from = reinterpret_cast<uintptr_t>(a.data), with = reinterpret_cast<uintptr_t>(b.data);
    if (from < with + uint64_t(b.bytes) && with < from + uint64_t(a.bytes))
      refuse(name, std::string("overlaps ") + other);
  }
  void enter(const char* list, int64_t i) {
    prefix_ = std::string(list) + "[" + std::to_string(i) + "].";
  }
  void leave() { prefix_.clear(); }

 private:
  void dtype(const char* name, DType dtype, Kind kind) {
    const bool floating = dtype <= DType::bf16, act = f32_only_ ? dtype == DType::f32 : floating;
    const auto must = [&](bool ok, const char* what) {
      if (!ok) refuse(name, std::string("is ") + kDTypeNames[int(dtype)] + ", must be " + what);
    };
    switch (kind) {
      case Kind::act:
        must(act, f32_only_ ? "f32" : "f32, f16 or bf16");
        if (has_act_ && dtype != act_) refuse(name, std::string("must be ") + kDTypeNames[int(act_)] + " as the others");
        has_act_ = true;
        act_ = dtype;
        return;
      case Kind::logits:
        return must(act, f32_only_ ? "f32" : "f32, f16 or bf16");
      case Kind::floating:
        return must(floating, "f32, f16 or bf16");
      case Kind::f32:
        return must(dtype == DType::f32, "f32");
      case Kind::i32:
        return must(dtype == DType::i32, "i32");
      case Kind::u8:
        return must(dtype == DType::u8, "u8");
      case Kind::i8:
        return must(dtype == DType::i8, "i8");
      case Kind::any:
        return;
    }
  }
  [[noreturn]] void refuse(const char* name, const std::string& what) const {
    throw Refused(prefix_ + name + " " + what);
  }
  const bool f32_only_;
  bool has_act_ = false;
  DType act_{};
  std::string prefix_;
};`;
