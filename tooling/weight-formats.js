// A weight format is one object: nobody outside of the two folders of formats asks which one a weight or a config has.

/** Kinds of weight, their names in files and to people, and quantization methods. */
const names = ['dense', 'bnb4', 'int8', 'nf4', 'fp4', 'bnb-4bit', 'bnb-int8', 'bitsandbytes', 'gptq', 'llm_int8'];
const flags = ['loadIn4bit', 'loadIn8bit', 'load_in_4bit', 'load_in_8bit'];
const configs = ['BitsAndBytesConfig', 'GPTQConfig'];

const oneOf = (words) => `/^(${words.join('|')})$/`;
const literal = `:matches(Literal[value=${oneOf(names)}], TemplateLiteral[quasis.0.value.raw=${oneOf(names)}])`;
const flag = `:matches(MemberExpression[property.name=${oneOf(flags)}], Identifier[name=${oneOf(flags)}])`;
const message = (what) =>
  `${what}: ask the format object instead (formatOf of @q/tensor, formatAsked of @q/loader; docs/architecture.md)`;
const forbidden = (what, ...selectors) => selectors.map((selector) => ({ selector, message: message(what) }));

const asks = `CallExpression[callee.property.name=${oneOf(['includes', 'indexOf', 'startsWith', 'endsWith', 'has'])}]`;
const listed = `ArrayExpression > ${literal}`;
// Words that are no names of dtypes or modules: as keys they make a table of formats.
const keys = oneOf(names.filter((name) => name !== 'dense' && name !== 'int8'));

const rules = [
  ...forbidden(
    'a comparison with a weight format',
    `BinaryExpression[operator=/^[!=]==?$/] > ${literal}`,
    `${asks} > ${literal}`,
    `${asks} > MemberExpression.callee > ${listed}`,
    `${asks} > MemberExpression.callee > NewExpression > ${listed}`,
    `CallExpression[callee.property.name='test'] > MemberExpression.callee > Literal[regex.pattern=/(nf4|fp4|gptq|bitsandbytes)/]`,
    `BinaryExpression[operator='instanceof'] > Identifier[name=${oneOf(configs)}]`,
  ),
  ...forbidden('a case of a weight format', `SwitchCase > ${literal}`),
  ...forbidden(
    'a branch on a quantization',
    `:matches(ConditionalExpression, IfStatement, WhileStatement, ForStatement) > ${flag}.test`,
    `:matches(ConditionalExpression, IfStatement, WhileStatement, ForStatement) > .test ${flag}`,
    `LogicalExpression > ${flag}`,
    `UnaryExpression[operator='!'] > ${flag}`,
    `BinaryExpression[operator=/^[!=]==?$/] > ${flag}`,
  ),
];

const tables = forbidden(
  'a table by weight format',
  `ObjectExpression > Property[computed=false]:matches([key.name=${keys}], [key.value=${keys}])`,
);

/** What knows formats: they themselves, their configs, and what tests them. */
const knowing = [
  'packages/tensor/src/formats/**',
  'packages/loader/src/formats/**',
  // The configs of bitsandbytes and GPTQ themselves.
  'packages/config/src/{bitsandbytes,gptq,quantization}.ts',
  // Flags of the command line, whose contradictions are told in their own words.
  'apps/cli/src/flags.ts',
  '**/*.test.ts',
  'packages/tensor/src/conformance/**',
  '**/testing/**',
];

/** Commands by kind: how the reference computes each, and the words of the table of commands. */
const commands = ['packages/tensor/src/driver/schema.ts', 'packages/tensor/src/reference/**'];

/** ESLint configuration that forbids switching on a weight format where another file would have to know the next. */
export const weightFormats = [
  {
    files: ['packages/*/src/**/*.ts', 'apps/*/src/**/*.ts'],
    ignores: knowing,
    rules: { 'no-restricted-syntax': ['error', ...rules, ...tables] },
  },
  { files: commands, ignores: knowing, rules: { 'no-restricted-syntax': ['error', ...rules] } },
];
