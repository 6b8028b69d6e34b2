"""Words that tell names from what only looks like them, for `names`: lower case, written for this purpose."""

from __future__ import annotations

_GIVEN = """
aaron abdul abdullah abigail adam adriana agnes agnieszka ahmed aiko aisha akira albert alejandra alejandro aleksandra
alessandro alessia alexander alexandra alexei alfredo alice alicia alison amanda amelia amina amit amy ana anastasia
andrea andreas andrei andrew andrzej angela anil anita anja anjali ann anna anne annika antoine anton antonio aoife
arjun arnaud arthur arturo asha ashley astrid barbara bartosz beatrice beatriz benjamin bernard bernd bianca birgit
bjorn bob bogdan brandon brenda brian bridget bruno camila camille carla carlos carmen carol carolina caroline
catherine cecilia charles charlotte chen chiara chidi chloe christian christina christine christoph christopher clara
claudia colin connor craig cristina cynthia dagmar daniel daniela danielle darius david deborah deepak denise dennis
derek diana diego dieter dimitri dmitri dominik donald dorothy douglas edward ekaterina eleanor elena elise elizabeth
ellen emeka emil emilia emily emma enrique eric erik esther eva evelyn ewa fatima federico felipe felix fernanda
fernando fiona florian francesca francesco francisco francois frederick friedrich gabriel gabriela gareth gavin george
gerald gerhard giorgio giovanni giulia giuseppe gloria gonzalo gordon graham gregory greta guillaume gunther gustavo
hannah hans harald harold haruto hassan heather heidi helen helena helga henrik henry hiroshi holger horst hugo
ibrahim igor ines ingrid irene irina isabel isabella ivan jacob jacqueline jakub james jamie jan jane janet javier
jean jeffrey jennifer jens jeremy jessica jill joan joana joanna johan johanna johannes john jonas jonathan jorge jose
joseph joshua juan juanita judith juergen julia julian julie jurgen justin kamal karen karin karl karolina katarzyna
kate katharina katherine kathleen katja keith kelly kenji kenneth kevin kimberly klaus kofi krzysztof kumar kwame lars
laszlo laura lauren laurent leila lena leon leonardo leticia liam lina linda lisa lorenzo louise luca lucas lucia luis
luisa lukas magdalena maja malgorzata manuel manuela marcel marcin marco marcus margaret maria mariam mariana marie
marina mario markus marta martha martin martina mateusz mathieu matteo matthew matthias maurice mehmet mei melissa
michael michal michele michelle miguel mikhail mohamed mohammad mohammed monica monika muhammad mustafa nadia nancy
natalia natasha neha nicholas nicola nicolas nicole niklas nikolai nina nkechi noah nora norbert oksana oleg olga
oliver olivia oscar otto pablo pamela paolo patricia patrick paul paula pauline pedro peter petra philip philippe
pierre piotr priya rachel rafael rahul rainer raj rajesh ralf ramon raquel rashid rebecca regina renate ricardo
richard robert roberto rodrigo roger roland roman ronald rosa ruth ryan sabine sakura salvatore samantha samir samuel
sandra sanjay sara sarah saskia scott sebastian sergei sergio sharon shreya silvia simon simone sofia sophia sophie
soren stefan stefania stefano stephanie stephen steven stuart sunita susan susanne sven svetlana sylvia takashi tamara
tanja tatiana teresa thomas thorsten tim timothy tobias tom tomas tomasz tony tracy ulrich ursula valentina vanessa
vera veronica victor vijay vikram vincent virginia vladimir walter wei wendy werner wilhelm william wojciech wolfgang
xavier yasmin yuki yusuf yvonne zainab zoe zofia
"""
_NO_NAME = """
account accounts admin administrator agent all anonymous api app assistant author award bank benz board book bot box
broker building business buyer card catalog center centre city client code colleague colleagues community company
conference contact corp country court cup customer customers data default demo department desk dev developer
developers dummy empty engineer engineering error everybody everyone example falls field first folks foundation
framework friend friends gmbh group guest guys help hotel house human id inc institute invalid island job kernel lab
labs language last library list llc ltd madam manager member mock model my name new no none null office ops order
orders owner page partner passenger patient pattern payments people platform prize product production project protocol
qa reader report required river road sales sample school server service services shop sir site software space staff
staging standard state store street string student subscriber summit support surname system tbd teacher team tenant
test tester text the theorem there title today token tool tower tuple typed unit university unknown user users valid
value vendor website welcome world you your
"""
_PARTICLES = "al bin da das de del della den der di do dos du el ibn la le san st ten ter van von zu zum"
_PEOPLE = """
accountholder assignee author beneficiary cardholder client contact creditor customer debtor employee guest holder owner
passenger patient recipient reporter reviewer sender student
"""
_NAMED = "billing family first full given last maiden middle nick shipping sur"

# Given names that are frequent in their countries, and no words of English or of software.
GIVEN = frozenset(_GIVEN.split())
# What stands with a capital where a name could, and is none.
NO_NAME = frozenset(_NO_NAME.split())
# Small words inside names.
PARTICLES = frozenset(_PARTICLES.split())
# Fields that hold a person's name, without joints; in the latter one word suffices.
PERSON_FIELDS = frozenset(_PEOPLE.split())
NAME_FIELDS = frozenset(f"{field}name" for field in (*PERSON_FIELDS, *_NAMED.split()))
