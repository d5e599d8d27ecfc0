// DDIM in C++, and the line-JSON protocol with which refdiff audits it. No library but the standard one.
//
//     g++ -std=c++17 -O2 -o ddim ddim.cpp && refdiff audit --command ./ddim
//
// The first half is the implementation, the second reads questions and writes answers. The protocol is described in
// refdiff/golden/protocol.py.
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

using Vector = std::vector<double>;

// ---- the implementation: x is a flat vector

// alpha_bar[t], t = 0..T, alpha_bar[0] = 1, for betas in equal steps.
Vector alpha_bars(int T, double beta_start, double beta_end) {
    Vector bar{1.0};
    double log_bar = 0;
    for (int t = 1; t <= T; ++t) {
        double beta = T > 1 ? beta_start + (beta_end - beta_start) * (t - 1) / (T - 1) : beta_start;
        if (!(beta > 0 && beta < 1)) throw std::invalid_argument("beta must lie between 0 and 1");
        log_bar += std::log1p(-beta);
        bar.push_back(std::exp(log_bar));
    }
    return bar;
}

// Trailing: T, T - T/S, .., T/S, and then the data, t = 0. Halves are rounded to even.
std::vector<int> trailing(int T, int steps) {
    if (steps < 1 || steps > T) throw std::invalid_argument("steps must lie between 1 and T");
    std::vector<int> times;
    for (int k = steps; k >= 1; --k) times.push_back(static_cast<int>(std::nearbyint(double(k) * T / steps)));
    times.push_back(0);
    return times;
}

// From alpha_bar a to alpha_bar s: sqrt(s) x0 + sqrt(1 - s - std^2) eps + std z.
Vector ddim_step(const Vector& x, const Vector& eps, double a, double s, double eta, const Vector* z) {
    double std_ = eta * std::sqrt((1 - s) / (1 - a) * (1 - a / s));
    Vector next(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
        double x0 = (x[i] - std::sqrt(1 - a) * eps[i]) / std::sqrt(a);
        next[i] = std::sqrt(s) * x0 + std::sqrt(1 - s - std_ * std_) * eps[i] + (z ? std_ * (*z)[i] : 0.0);
    }
    return next;
}

using Network = std::function<Vector(const Vector&, int)>;
using Noise = std::function<Vector(int)>;

Vector ddim(Vector x, const Vector& bar, const std::vector<int>& times, double eta, const Network& network,
            const Noise& noise) {
    for (size_t i = 0; i + 1 < times.size(); ++i) {
        Vector eps = network(x, times[i]);
        bool draw = eta > 0 && i + 2 < times.size();                        // none on the last step
        Vector z = draw ? noise(static_cast<int>(i)) : Vector();
        x = ddim_step(x, eps, bar[times[i]], bar[times[i + 1]], eta, draw ? &z : nullptr);
    }
    return x;
}

// ---- JSON: what of it the protocol needs

struct Json {
    enum Kind { Null, Number, Text, List, Object } kind = Null;
    double number = 0;
    std::string text;
    std::vector<Json> list;
    std::map<std::string, Json> object;

    bool has(const std::string& name) const { return object.count(name) && object.at(name).kind != Null; }
    const Json& at(const std::string& name) const {
        if (!has(name)) throw std::invalid_argument("wanted " + name);
        return object.at(name);
    }
    double real(const std::string& name, double otherwise) const { return has(name) ? at(name).number : otherwise; }
    int whole(const std::string& name) const {
        double v = at(name).number;
        if (!(v >= 1 && v < 1e9 && v == std::floor(v))) throw std::invalid_argument(name + " must be a positive integer");
        return static_cast<int>(v);
    }
};

struct Reader {
    const std::string& s;
    size_t i = 0;

    char next() {
        while (i < s.size() && std::isspace(static_cast<unsigned char>(s[i]))) ++i;
        if (i >= s.size()) throw std::invalid_argument("JSON ends early");
        return s[i];
    }
    void skip(char c) {
        if (next() != c) throw std::invalid_argument(std::string("JSON: wanted ") + c);
        ++i;
    }
    std::string quoted() {
        std::string made;
        for (skip('"'); i < s.size() && s[i] != '"'; ++i) {
            if (s[i] == '\\') ++i;                                          // names and numbers need no escapes
            made += s[i];
        }
        skip('"');
        return made;
    }
    Json value() {
        Json made;
        char c = next();
        if (c == '{') {
            made.kind = Json::Object;
            for (skip('{'); next() != '}';) {
                if (!made.object.empty()) skip(',');
                next();
                std::string name = quoted();
                skip(':');
                made.object[name] = value();
            }
            skip('}');
        } else if (c == '[') {
            made.kind = Json::List;
            for (skip('['); next() != ']';) {
                if (!made.list.empty()) skip(',');
                made.list.push_back(value());
            }
            skip(']');
        } else if (c == '"') {
            made.kind = Json::Text;
            made.text = quoted();
            made.number = made.text == "Infinity" ? INFINITY : made.text == "-Infinity" ? -INFINITY : NAN;
        } else if (c == 'n' || c == 't' || c == 'f') {
            made.kind = c == 'n' ? Json::Null : Json::Number;
            made.number = c == 't';
            i += c == 'f' ? 5 : 4;
        } else {
            char* end = nullptr;
            made.kind = Json::Number;
            made.number = std::strtod(s.c_str() + i, &end);
            if (end == s.c_str() + i) throw std::invalid_argument("JSON: wanted a value");
            i = end - s.c_str();
        }
        return made;
    }
};

std::string json(double v) {
    if (std::isnan(v)) return "\"NaN\"";
    if (std::isinf(v)) return v > 0 ? "\"Infinity\"" : "\"-Infinity\"";
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", v);                           // every bit of a double
    return text;
}

std::string json(const Vector& v) {
    std::string made = "[";
    for (size_t i = 0; i < v.size(); ++i) made += (i ? "," : "") + json(v[i]);
    return made + "]";
}

// Rows of `width` numbers, as x came.
std::string rows(const Vector& v, size_t width) {
    std::string made = "[";
    for (size_t i = 0; i < v.size(); i += width)
        made += (i ? "," : "") + json(Vector(v.begin() + i, v.begin() + i + width));
    return made + "]";
}

void flatten(const Json& value, Vector& into) {
    if (value.kind != Json::List) into.push_back(value.number);
    for (const Json& part : value.list) flatten(part, into);
}

Vector numbers(const Json& value) {
    Vector made;
    flatten(value, made);
    return made;
}

// ---- the protocol

struct NotImplemented : std::runtime_error { using std::runtime_error::runtime_error; };

std::string read_line() {
    std::string line;
    if (!std::getline(std::cin, line)) std::exit(0);
    return line;
}

// Ask refdiff for a value while answering: the network's prediction, or a draw.
Vector ask(const std::string& call) {
    std::cout << call << std::endl;                                         // endl flushes
    std::string line = read_line();
    return numbers(Reader{line}.value().at("value"));
}

void only(const Json& inputs, const std::string& name, const std::string& known) {
    if (inputs.at(name).text != known) throw NotImplemented(name + " " + inputs.at(name).text);
}

// Refuse what this program has no use for: to leave an option out in silence would be a wrong answer.
void nothing_but(const Json& inputs, const std::string& names) {
    for (const auto& entry : inputs.object)
        if ((" " + names + " ").find(" " + entry.first + " ") == std::string::npos && entry.second.kind != Json::Null)
            throw NotImplemented("input " + entry.first);
}

std::string answer(const std::string& id, const std::string& operation, const Json& in) {
    if (operation == "hello")
        return "{\"name\": \"ddim.cpp\", \"version\": \"1.0\", \"operations\": [\"schedule\", \"grid\", \"trajectory\"], "
               "\"configurations\": [{\"sampler\": \"ddim\", \"eta\": 0.0}, {\"sampler\": \"ddim\", \"eta\": 0.5}]}";
    if (operation == "schedule") {
        nothing_but(in, "name T beta_start beta_end");
        only(in, "name", "linear");
        return "{\"alpha_bar\": " + json(alpha_bars(in.whole("T"), in.real("beta_start", 1e-4),
                                                     in.real("beta_end", 0.02))) + "}";
    }
    nothing_but(in, "sampler schedule T steps rule final x eta noise denoiser");
    only(in, "schedule", "linear");
    only(in, "rule", "trailing");
    only(in, "final", "zero");
    int T = in.whole("T");
    std::vector<int> times = trailing(T, in.whole("steps"));
    Vector bar = alpha_bars(T, 1e-4, 0.02);
    if (operation == "grid") {
        Vector t(times.begin(), times.end()), visited;
        for (int time : times) visited.push_back(bar[time]);
        return "{\"t\": " + json(t) + ", \"alpha_bar\": " + json(visited) + "}";
    }
    if (operation != "trajectory") throw NotImplemented(operation);
    only(in, "sampler", "ddim");
    size_t width = in.at("x").list.at(0).list.size();
    auto network = [&](const Vector& x, int t) {
        return ask("{\"id\": " + id + ", \"call\": \"denoiser\", \"x\": " + rows(x, width) + ", \"t\": " +
                   std::to_string(t) + "}");
    };
    auto noise = [&](int i) { return ask("{\"id\": " + id + ", \"call\": \"noise\", \"i\": " + std::to_string(i) + "}"); };
    return "{\"x\": " + rows(ddim(numbers(in.at("x")), bar, times, in.real("eta", 0), network, noise), width) + "}";
}

int main() {
    for (;;) {
        std::string line = read_line(), reply;
        Json request = Reader{line}.value();
        std::string id = std::to_string(int(request.at("id").number));
        try {
            reply = "\"answer\": " + answer(id, request.at("operation").text, request.at("inputs"));
        } catch (const NotImplemented& error) {
            reply = std::string("\"error\": \"not-implemented: ") + error.what() + "\"";
        } catch (const std::exception& error) {
            reply = std::string("\"error\": \"") + error.what() + "\"";
        }
        std::cout << "{\"id\": " << id << ", " << reply << "}" << std::endl;
    }
}
