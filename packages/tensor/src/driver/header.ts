import {
  activationKinds,
  commandNames,
  commands,
  maxLinearParts,
  quantTypes,
  randomKinds,
  routeKinds,
  weightKinds,
  type Fields,
} from './schema.js';
import { dtypes } from '../dtype.js';
import { checkFunctions, checkHelpers, checkSupport, pascal, snake } from './header-check.js';
import { commandLists, traits } from './header-marks.js';
import { rules } from './rules.js';

const enumeration = (name: string, values: Record<string, number>) =>
  [
    `enum class ${name} : int {`,
    ...Object.entries(values).map(([key, value]) => `  ${key === 'bool' ? 'boolean' : key} = ${value},`),
    '};',
  ].join('\n');

const members = (fields: Fields, prefix: string, lines: string[]): string[] =>
  Object.entries(fields).flatMap(([name, type]) => {
    if (type === 'tensor' || type === 'tensor?') return [`  Tensor ${snake(name)};`];
    if (type === 'int') return [`  int64_t ${snake(name)};`];
    if (type === 'float') return [`  double ${snake(name)};`];
    const item = `${prefix}Item`;
    lines.push(structure(item, type.repeat, lines));
    const list = type.most ? `std::vector<${item}> ${snake(name)}` : `${item} ${snake(name)}[kMaxRepeat]`;
    return [`  int64_t ${snake(name)}_count;`, `  ${list};`];
  });

const reads = (fields: Fields): string[] =>
  Object.entries(fields).map(([name, type]) => {
    const field = snake(name);
    if (type === 'tensor' || type === 'tensor?') return `    a.${field} = r.tensor("${name}", ${type === 'tensor'});`;
    if (type === 'int') return `    a.${field} = r.integer("${name}");`;
    if (type === 'float') return `    a.${field} = r.number("${name}");`;
    return [
      `    a.${field}_count = r.count("${name}", ${type.most ?? 'kMaxRepeat'});`,
      ...(type.most ? [`    a.${field}.resize(static_cast<size_t>(a.${field}_count));`] : []),
      `    for (int64_t i = 0; i < a.${field}_count; ++i) {`,
      `      r.enter("${name}", i);`,
      `      a.${field}[i] = std::remove_reference_t<decltype(a.${field}[i])>::read(r);`,
      '      r.leave();',
      '    }',
    ].join('\n');
  });

const structure = (name: string, fields: Fields, before: string[], own: readonly string[] = []): string => {
  const body = members(fields, name, before);
  return [
    `struct ${name} {`,
    ...body,
    ...own,
    `  static ${name} read(Words& r) {`,
    `    ${name} a{};`,
    ...reads(fields),
    '    return a;',
    '  }',
    '};',
  ].join('\n');
};

/** FNV-1a of the command table and its rules: native code built against another table is refused on load. */
export const abiHash: string = (() => {
  let hash = 0x811c9dc5;
  for (const c of JSON.stringify([
    commands,
    rules,
    weightKinds,
    quantTypes,
    activationKinds,
    randomKinds,
    routeKinds,
    dtypes,
  ])) {
    hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193) >>> 0;
  }
  return hash.toString(16).padStart(8, '0');
})();

/** The text of native/q_ops.h. */
export function nativeHeader(): string {
  const structs = commandNames.flatMap((name) => {
    const before: string[] = [];
    const own = structure(`${pascal(name)}Args`, commands[name], before, traits(name));
    return [...before, own];
  });
  const codes = Object.fromEntries(commandNames.map((name, code) => [name, code]));
  return `// Generated from src/driver/schema.ts, rules.ts and marks.ts (pnpm generate); a test compares them. What each field
// means is said there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace q {

constexpr const char* kAbi = "${abiHash}";
constexpr int kMaxRepeat = ${maxLinearParts};

${enumeration('DType', Object.fromEntries(Object.entries(dtypes).map(([name, { code }]) => [name, code])))}
constexpr const char* kDTypeNames[] = {${Object.keys(dtypes)
    .map((name) => `"${name}"`)
    .join(', ')}};
constexpr int64_t element_bytes(DType dtype) {
  constexpr int64_t bytes[] = {${Object.values(dtypes)
    .map(({ bytes }) => bytes)
    .join(', ')}};
  return bytes[int(dtype)];
}
${enumeration('WeightKind', weightKinds)}
${enumeration('QuantType', quantTypes)}
${enumeration('ActivationKind', activationKinds)}
${enumeration('RandomKind', randomKinds)}
${enumeration('RouteKind', routeKinds)}
${enumeration('Command', codes)}
constexpr int kCommandCount = ${commandNames.length};
constexpr const char* kCommandNames[] = {
${commandNames.map((name) => `  "${name}",`).join('\n')}
};

/// Bytes on the device and how to read them; data is null when an optional tensor is absent.
struct Tensor {
  void* data;
  DType dtype;
  int64_t bytes;
  explicit operator bool() const { return data != nullptr; }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

${checkSupport}

// The arguments of each command, with its marks (marks.ts). each_tensor(f) calls f(tensor, early) for every tensor,
// present or not; early: kernels may read it before those ahead of them have ended. kMayWait: see Q_EACH_JOIN.
${structs.join('\n\n')}

${commandLists()}

${checkHelpers}

${checkFunctions()}

}  // namespace q
`;
}
